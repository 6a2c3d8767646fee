"""How a person is put together on the canvas: back to front, from shoes to hat, as seen from one side."""

import math
from dataclasses import dataclass

from datasets.synthetic_paint import Canvas, Point
from datasets.synthetic_people import Colour, Person

SHOULDER = 0.81  # heights of the joints above the ground, in body heights
NECK = 0.84
CHIN = 0.865
KNEE_SHARE = 0.54  # the knee's height as a share of the hip's


@dataclass(frozen=True)
class Pose:
    """How a person stands in one image.

    Attributes:
        yaw: Direction of the face, radians; 0 looks at the camera, π/2 to the right, π away.
        stride: How far the left leg is ahead, in body heights; negative is behind.
        arm_swing: How far the right hand is ahead, in body heights.
    """

    yaw: float
    stride: float
    arm_swing: float


def paint_person(canvas: Canvas, person: Person, pose: Pose) -> None:
    """Paints a person over the scene."""
    figure = _Figure(canvas, person, pose)
    canvas.shade((0.03, 0.0), (0.2, 0.035), 0.45)
    if figure.facing > 0:
        figure.paint_backpack()
    behind = figure.near == -1 and abs(figure.profile) > 0.5  # things are carried in the right hand
    if behind:
        figure.paint_carried()
    figure.paint_arm(-figure.near)
    figure.paint_leg(-figure.near)
    figure.paint_leg(figure.near)
    figure.paint_skirt()
    figure.paint_trunk()
    figure.paint_head()
    if figure.facing <= 0:
        figure.paint_backpack()
    figure.paint_straps()
    figure.paint_arm(figure.near)
    if not behind:
        figure.paint_carried()


class _Figure:
    """One person in one pose; the parts paint themselves.

    Side -1 is the person's own left, 1 the right.
    """

    def __init__(self, canvas: Canvas, person: Person, pose: Pose) -> None:
        self.canvas = canvas
        self.person = person
        self.facing = math.cos(pose.yaw)  # 1: towards the camera, -1: away
        self.profile = math.sin(pose.yaw)  # 1: to the right, -1: to the left
        self.near = 1 if self.profile >= 0 else -1  # the side that hides the other
        self.stride = pose.stride
        self.arm_swing = pose.arm_swing
        self.turn = 0.9 * self.profile  # where the middle of the front is, in half-widths
        breadth = math.hypot(self.facing, 0.66 * self.profile)  # a trunk is about two thirds as deep as it is wide
        self.shoulder = 0.112 * person.shoulders * (0.6 + 0.4 * person.girth) * breadth
        self.waist = 0.09 * person.girth * breadth
        self.hip = 0.1 * (0.4 + 0.6 * person.girth) * breadth
        self.joint = -self.facing  # x of side 1's joints by their distance from the axis

    def paint_leg(self, side: int) -> None:
        """Paints one leg with trousers, skin and shoe."""
        person, thick = self.person, 0.5 + 0.5 * self.person.girth
        ahead = -side * self.stride
        hip: Point = (side * self.joint * 0.048, person.hip_height)
        lift = 0.02 * max(0.0, -ahead) / 0.1  # the heel behind leaves the ground
        foot: Point = (hip[0] * 1.05 + ahead * self.profile, 0.03 + lift - 0.06 * ahead * self.facing)
        bend = 0.25 * abs(ahead) * self.profile
        knee: Point = (
            hip[0] + KNEE_SHARE * (foot[0] - hip[0]) * 0.85 + bend,
            person.hip_height * KNEE_SHARE + 0.5 * lift,
        )
        radii = (0.056 * thick, 0.04 * thick, 0.027 * thick)
        self.canvas.limb(hip, knee, radii[:2], person.skin)
        self.canvas.limb(knee, foot, radii[1:], person.skin)
        if person.boot > 0.05:
            share = min(1.0, person.boot / knee[1])
            self.canvas.limb(_between(foot, knee, share), foot, (radii[2] * 1.25, radii[2] * 1.2), person.shoe)
        toe = (foot[0] + 0.05 * self.profile, foot[1] - 0.012)
        self.canvas.limb(foot, toe, (0.026, 0.02), person.shoe)
        if person.bottom != "skirt":
            self._paint_trouser(hip, knee, foot, radii)

    def _paint_trouser(self, hip: Point, knee: Point, foot: Point, radii: tuple[float, float, float]) -> None:
        """Paints the trouser leg down to its hem."""
        person = self.person
        loose = 1.45 if person.bottom == "wide" else 1.12
        upper = (radii[0] * 1.08, radii[1] * loose)
        if person.trouser_hem >= knee[1]:
            share = (hip[1] - person.trouser_hem) / (hip[1] - knee[1])
            self.canvas.limb(hip, _between(hip, knee, share), upper, person.bottom_fabric)
            return
        self.canvas.limb(hip, knee, upper, person.bottom_fabric)
        share = min(1.0, (knee[1] - person.trouser_hem) / max(knee[1] - foot[1], 1e-6))
        lower = (radii[1] * loose, radii[2] * (loose + 0.25))
        self.canvas.limb(knee, _between(knee, foot, share), lower, person.bottom_fabric)

    def paint_skirt(self) -> None:
        """Paints a skirt, or the seat of the trousers."""
        person = self.person
        waist = (person.hip_height + 0.08, self.waist)
        if person.bottom == "skirt":
            profile = [(person.trouser_hem, self.hip * 1.35), (person.hip_height, self.hip * 1.05), waist]
        else:
            profile = [(person.hip_height - 0.03, self.hip * 0.95), waist]
        self.canvas.column(0.0, profile, person.bottom_fabric, self.turn)

    def paint_trunk(self) -> None:
        """Paints neck, top, what shows under an open front, and the scarf."""
        person = self.person
        self.canvas.column(0.0, [(SHOULDER - 0.02, 0.035), (CHIN + 0.02, 0.032)], person.skin)
        profile = [(0.62, self.waist), (SHOULDER - 0.03, self.shoulder), (NECK, self.shoulder * 0.55)]
        if person.hem < person.hip_height - 0.08:
            profile = [(person.hem, self.hip * 1.4), (person.hip_height, self.hip * 1.12), *profile]
        else:
            profile = [(person.hem, self.hip * 1.06), *profile]
        self.canvas.column(0.0, profile, person.top_fabric, self.turn)
        if person.opening and self.facing > 0.1:
            half = person.opening * self.waist * self.facing
            shown = [(max(person.hem, person.hip_height - 0.02), half), (NECK - 0.01, half * 0.8)]
            self.canvas.column(self.turn * self.waist, shown, person.inner)
        if person.scarf is not None:
            self.canvas.column(0.0, [(SHOULDER + 0.005, 0.058), (CHIN, 0.05)], person.scarf)
            if self.facing > 0:
                self.canvas.column(self.turn * 0.05, [(0.68, 0.018), (SHOULDER, 0.02)], person.scarf)

    def paint_arm(self, side: int) -> None:
        """Paints one arm with its sleeve and hand."""
        person, thick = self.person, 0.55 + 0.45 * self.person.girth
        joint = self.joint * self.shoulder * 0.92
        shoulder: Point = (side * joint, SHOULDER - 0.025)
        hand = self._hand(side)
        elbow: Point = (
            0.5 * (shoulder[0] + hand[0]) + side * self.joint * 0.012 - 0.02 * self.profile,
            0.5 * (shoulder[1] + hand[1]),
        )
        radii = (0.036 * thick, 0.029 * thick, 0.021 * thick)
        self.canvas.limb(elbow, hand, radii[1:], person.skin)
        fabric = person.inner if person.top == "vest" else person.top_fabric
        if person.sleeve > 0.5:
            self.canvas.limb(shoulder, elbow, radii[:2], fabric)
            end = _between(elbow, hand, 2 * person.sleeve - 1.05)
            self.canvas.limb(elbow, end, (radii[1] * 1.05, radii[2] * 1.15), fabric)
        else:
            self.canvas.limb(shoulder, elbow, radii[:2], person.skin)
            end = _between(shoulder, elbow, 2 * person.sleeve)
            self.canvas.limb(shoulder, end, (radii[0] * 1.1, radii[1] * 1.25), fabric)

    def _hand(self, side: int) -> Point:
        """Finds where a hand is."""
        ahead = side * self.arm_swing
        out = side * self.joint * (self.shoulder + 0.02)
        return out + ahead * self.profile, 0.47 + 0.4 * abs(ahead)

    def paint_head(self) -> None:
        """Paints face, hair and headgear."""
        person, size = self.person, self.person.head
        rx, ry = 0.052 * size, 0.068 * size
        centre: Point = (0.012 * self.profile, CHIN + ry)
        top = centre[1] + ry
        style = person.hairstyle
        long_hair = [(SHOULDER - 0.02, rx * 1.15), (centre[1], rx * 1.25), (top - 0.02, rx * 0.95)]
        if style == "long" and self.facing > 0:
            self.canvas.column(-0.01 * self.profile, long_hair, person.hair)
        self.canvas.ellipse(centre, (rx, ry), person.skin)
        if style in ("short", "long", "bun"):
            back = (centre[0] - rx * 0.45 * self.profile, centre[1] + ry * (0.15 + 0.3 * max(0.0, self.facing)))
            depth = ry * (0.95 - 0.3 * max(0.0, self.facing))
            self.canvas.ellipse(back, (rx * 1.06, depth), person.hair)
        if style == "long" and self.facing <= 0:
            self.canvas.column(-0.01 * self.profile, long_hair, person.hair)
        if style == "bun":
            self.canvas.ellipse((centre[0] - rx * self.profile, top + 0.005), (0.028, 0.026), person.hair)
        if style == "cap":
            self.canvas.ellipse((centre[0], centre[1] + ry * 0.5), (rx * 1.1, ry * 0.6), person.headgear)
            if self.facing > -0.3:
                peak = (centre[0] + rx * 0.8 * self.profile, centre[1] + ry * 0.25)
                self.canvas.ellipse(peak, (rx * 0.9, ry * 0.16), person.headgear)
        if style == "hood":
            shift = centre[0] - rx * 0.4 * self.profile
            hood: Colour = person.top_fabric.colour
            self.canvas.ellipse((shift, centre[1]), (rx * 1.25, ry * 1.15), hood)
            if self.facing > -0.2:
                face = (centre[0] + rx * 0.35 * self.profile, centre[1] - ry * 0.1)
                self.canvas.ellipse(face, (rx * 0.75, ry * 0.78), person.skin)

    def paint_backpack(self) -> None:
        """Paints a backpack; from the front only what looks out behind the trunk."""
        if self.person.bag != "backpack":
            return
        size = self.person.bag_size
        half = 0.085 * size * math.hypot(self.facing, 0.6 * self.profile)
        centre = -0.9 * self.profile * (self.waist + 0.035)
        low, high = 0.66 - 0.09 * size, 0.66 + 0.13 * size
        self.canvas.column(centre, [(low, half), (high - 0.04, half), (high, half * 0.7)], self.person.bag_colour)
        if self.facing <= 0:
            red, green, blue = self.person.bag_colour
            pocket = [(low + 0.02, half * 0.7), (low + 0.08, half * 0.7)]
            self.canvas.column(centre, pocket, (0.7 * red, 0.7 * green, 0.7 * blue))

    def paint_straps(self) -> None:
        """Paints the straps that cross the trunk."""
        person = self.person
        if person.bag == "backpack" and self.facing > 0:
            for side in (-1, 1):
                x = side * self.shoulder * 0.55 * self.facing + self.turn * 0.03
                self.canvas.limb((x, SHOULDER), (x * 1.1, 0.64), (0.013, 0.012), person.bag_colour)
        if person.bag == "shoulder":
            low = (self.joint * self.hip, person.hip_height + 0.03)
            high = (-self.joint * self.shoulder * 0.6, SHOULDER)
            self.canvas.limb(high, low, (0.011, 0.011), person.bag_colour)

    def paint_carried(self) -> None:
        """Paints what hangs at the right side: shoulder bag, hand bag or case."""
        person = self.person
        size = person.bag_size
        if person.bag == "shoulder":
            half = 0.055 * size
            centre = self.joint * (self.hip + 0.02)
            top = person.hip_height + 0.05
            self.canvas.column(centre, [(top - 0.11 * size, half), (top, half * 0.9)], person.bag_colour)
        if person.bag in ("hand", "case"):
            x, y = self._hand(1)
            half = (0.05 if person.bag == "hand" else 0.075) * size
            length = 0.12 * size if person.bag == "hand" else y - 0.04
            self.canvas.limb((x, y), (x, y - 0.05), (0.008, 0.008), person.bag_colour)
            drop = y - 0.05
            self.canvas.column(x, [(max(0.02, drop - length), half), (drop, half * 0.9)], person.bag_colour)


def _between(start: Point, end: Point, share: float) -> Point:
    """Finds the point at ``share`` of the way."""
    return start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])
