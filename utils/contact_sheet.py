"""Contact sheets: rows of small images at their own pixels, a label above each."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from utils.errors import UserError
from utils.files import check_writable, write_atomically

LABEL_PX = 12
GAP_PX = 4

Cell = tuple[str, Image.Image | None]  # label, and an image of the cell's size; None: the cell is crossed out


def draw_contact_sheet(rows: Sequence[Sequence[Cell]], cell_px: tuple[int, int], per_group: int) -> Image.Image:
    """Sets images side by side.

    Args:
        rows: At least one, of at least one cell.
        cell_px: Width and height of a cell.
        per_group: Cells that stand together before a gap.

    Returns:
        An RGB image.
    """
    width, height = cell_px
    columns = max(len(row) for row in rows)
    size = columns * width + (columns - 1) // per_group * GAP_PX, len(rows) * (height + LABEL_PX)
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    for y, row in enumerate(rows):
        top = y * (height + LABEL_PX) + LABEL_PX
        for x, (label, image) in enumerate(row):
            left = x * width + x // per_group * GAP_PX
            pen.text((left, top - LABEL_PX), label, fill="black")
            if image is not None:
                sheet.paste(image, (left, top))
                continue
            right, bottom = left + width - 1, top + height - 1
            pen.line([(left, top), (right, bottom)], fill="red")
            pen.line([(left, bottom), (right, top)], fill="red")
    return sheet


def check_sheet_name(path: Path) -> None:
    """Checks before anything is drawn that a contact sheet can be written under this name.

    Raises:
        UserError: it does not end in .png, or as ``check_writable``.
    """
    if path.suffix.lower() != ".png":
        raise UserError(f"cannot write {path}: the name of a contact sheet ends in .png")
    check_writable(path)


def save_contact_sheet(sheet: Image.Image, path: Path) -> None:
    """Writes a contact sheet as PNG, all or nothing.

    Raises:
        UserError: the file cannot be written.
    """
    write_atomically(path, lambda file: sheet.save(file, format="PNG"))
