"""How values, means and their intervals are written."""

import math
from collections.abc import Iterable, Mapping, Sequence

from search.compare import Mean
from search.measures import Expected, Measures
from search.orders import Interval
from search.places import Place

# how each of ``search.measures.Measures`` is written
MEASURES = {"tau": ".2f", "top_tau": ".2f", "regret": ".1%", "regret_of_ten": ".1%", "percentile": ".0%"}
ROUNDING = 1e-9  # half-widths below are of equal values


def format_expected(expected: Expected) -> list[str]:
    """Writes the mean and the range of each measure."""
    return [format_interval(Interval(*(getattr(m, name) for m in expected)), spec) for name, spec in MEASURES.items()]


def format_measures(measures: Measures, tau: Interval) -> list[str]:
    """Writes the measures of a single order, of which tau alone has an interval."""
    found = {name: Interval(getattr(measures, name), math.nan, math.nan) for name in MEASURES} | {"tau": tau}
    return [format_interval(found[name], spec) for name, spec in MEASURES.items()]


def format_interval(interval: Interval, spec: str) -> str:
    """Writes a value with its interval, if it has one; – where there is no value."""
    return "–" if math.isnan(interval.value) else f"{interval.value:{spec}}{format_ends(interval, spec)}"


def format_ends(interval: Interval, spec: str) -> str:
    """Writes the ends of an interval, to follow its value; nothing where it has none."""
    return "" if math.isnan(interval.low) else f" ({interval.low:{spec}} … {interval.high:{spec}})"


def format_domains(domains: Mapping[str, float]) -> str:
    """Writes the lowest and the highest of single domains' tau-b, with the domains' names; – where there is none."""
    if not domains or any(map(math.isnan, domains.values())):
        return "–"
    low, high = (pick(domains, key=domains.__getitem__) for pick in (min, max))
    return " to ".join(f"{domains[name]:.2f} ({name.partition('/')[0]})" for name in (low, high))


def format_tau(tau: Interval | None) -> str:
    """Writes tau with its interval."""
    return "–" if tau is None else format_interval(tau, ".2f")


def format_mean(mean: Mean, spec: str) -> str:
    """Writes a mean with the half of its interval, if it has one; equal values, which say little of it, as such."""
    if math.isnan(mean.mean):
        return "–"
    return f"{mean.mean:{spec}} each" if mean.half_width < ROUNDING else mean.format(spec)


def format_place(place: Place) -> str:
    """Writes an effect with its interval, bold where it is decided."""
    text = f"{place.value:+.1%} ({place.low:+.1%} … {place.high:+.1%})"
    return f"**{text}**" if place.is_decided else text


def format_markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Sets a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
