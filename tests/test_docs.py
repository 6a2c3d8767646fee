"""README and the pages of docs/: what they say is what there is."""

import re
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from search.submission import read_submission
from search.table import Table
from tests.doc_checks import PAGES, ROOT, find_blocks, find_problems
from tests.test_house import FOLDERS, TOP
from tools.train_table import read_plan

MAX_README_LINES = 150
GOOD = """\
# A page

```
DATA=/data
python main.py --config-file nas.yaml --root $DATA \\
    nas.method uniform nas.held_out cameras     # a comment
NCCL_DEBUG=WARN torchrun --nproc-per-node 2 main.py --config-file nas.yaml train.lr=0.1
python -m tools.check_dataset market1501 --root $DATA --sheet people.png
```

```python
from feature_extractor import FeatureExtractor

print(FeatureExtractor("a.pt", flip=True).child)
```

```yaml
base: child.yaml
train: {lr: 0.1}
```

See [this](#a-page), [that](docs/data.md#names), `train.lr 0.1`, `data.save_dir`, `--config-file`, `make demo`,
`main.py`.
"""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page_says_what_there_is(page: Path) -> None:
    assert not find_problems(page.read_text(), page)


def test_a_page_without_a_fault_has_no_problem() -> None:
    assert not find_problems(GOOD, ROOT / "README.md")


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("python main.py --confg-file nas.yaml", "unknown option --confg-file"),
        ("python main.py --config-file nass.yaml", "cannot read config file"),
        ("python main.py train.lrr 0.1", "unknown key 'train.lrr'"),
        ("python main.py train.lr 0.1 \\\n    train.max_epoch x", "train.max_epoch"),
        ("python main.py nas.method uniforms", "allowed are gumbel"),
        ("python main.py nas.method uniform", "nas.held_out"),
        ("python main.py -s market1502", "unknown data set 'market1502'"),
        ("python main.py --transforms random_flop", "random_flop is none of"),
        ("python main.py model.name osnet_child model.genotype osnet_ian", "osnet_ian is no genotype"),
        ("python man.py", "python man.py: unknown"),
        ("python -c 'from search.table import Tables'", "Tables"),
        ("python -m tools.check_datset --all", "no module tools.check_datset"),
        ("python -m tools.check_dataset --lay-out market1501", "unrecognized arguments: --lay-out"),
        ("python -m tools.check_dataset --layout market1502", "unknown data set 'market1502'"),
        ("python -m tools.convert_weights imprt a.pth b.pt", "invalid choice: 'imprt'"),
        ("python -m tools.judge_search log --table synthetic_x", "no table 'synthetic_x'"),
        ("python -m tools.train_table tables/nowhere.yaml", "cannot read plan"),
        (
            "python -m tools.compare_genotypes --genotypes osnat --config-file child.yaml --folder a",
            "osnat is no genotype",
        ),
        ("python -m benchmarks.evaluation --quik", "unrecognized arguments: --quik"),
        ("python -m benchmarks.training train.lrr 1", "unknown key 'train.lrr'"),
        ("torchrun --nproc-per-nod-e 4 main.py", "nproc-per-nod-e"),
        ("torchrun --nproc-per-node 4 main.py train.lrr 1", "unknown key 'train.lrr'"),
        ("torchrun --nproc-per-node 4 man.py", "man.py, not main.py"),
        ("make tset", "tset is none of demo"),
        ("pip install -r requirement.txt", "no file requirement.txt"),
        ("pythn main.py", "unknown program pythn"),
    ],
)
def test_a_command_with_a_fault_is_found(command: str, told: str) -> None:
    (problem,) = find_problems(f"Text.\n\n```sh\n# why\n{command}\n```\n", ROOT / "README.md")
    assert problem.startswith("README.md, line 5: ")
    assert told in problem


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("`train.lrr`", "no setting train.lrr"),
        ("`train.amp bf17`", "train.amp bf17: allowed are off"),
        ("`model.genotype osnet_ian`", "osnet_ian is no genotype"),
        ("`--confg-file`", "no program here takes --confg-file"),
        ("`osnet_chid.py`", "no file osnet_chid.py"),
        ("`configs/p9.yaml`", "no file configs/p9.yaml"),
        ("`make dmo`", "dmo is none of"),
        ("[x](docs/nowhere.md)", "no file docs/nowhere.md"),
        ("[x](docs/data.md#nowhere)", "docs/data.md has no heading #nowhere"),
        ("![x](#nowhere)", "README.md has no heading #nowhere"),
        ("```python\nfrom feature_extractor import FeatureExtracter\n```", "FeatureExtracter"),
        ("```python\nfrom feature_extractor import FeatureExtractor\nFeatureExtractor('a', flipp=1)\n```", "flipp"),
        ("```python\nfrom search.table import Table\nTable.load_all('a')\n```", "load_all"),
        ("```python\nimport osnet_chid\n```", "osnet_chid"),
        ("```python\nprint(\n```", "example: "),
        ("```yaml\ntrain: {lrr: 1}\n```", "unknown key 'train.lrr'"),
        ("```yaml\nbase: chid.yaml\n```", "chid.yaml"),
        ("```pythn\nprint()\n```", "another language"),
    ],
)
def test_text_with_a_fault_is_found(text: str, told: str) -> None:
    (problem,) = find_problems(f"# Title\n\n{text}\n", ROOT / "README.md")
    assert problem.startswith("README.md, line 3: ")
    assert told in problem


def test_readme_is_short_and_names_every_page() -> None:
    text = (ROOT / "README.md").read_text()
    assert text.count("\n") <= MAX_README_LINES
    missing = [page.name for page in (ROOT / "docs").glob("*.md") if f"(docs/{page.name})" not in text]
    assert not missing


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_page_begins_with_a_command(page: Path) -> None:
    text = page.read_text()
    assert re.match(r"# .+\n\n```\n(python|make|torchrun|pip) ", text)


def test_files_page_names_every_file() -> None:
    text = (ROOT / "docs" / "files.md").read_text()
    missing = [f"{name}.py" for name in TOP if f"`{name}.py`" not in text]
    missing += [f"{folder}/" for folder in FOLDERS if f"`{folder}/`" not in text]
    patterns = re.findall(r"`(\S+\.yaml)`", text)
    missing += [path.name for path in ROOT.glob("*.yaml") if not any(path.match(pattern) for pattern in patterns)]
    assert not missing


def test_examples_of_the_tables_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for block in find_blocks((ROOT / "docs" / "tables.md").read_text()):
        if block.language == "python":
            exec(compile(block.code, "docs/tables.md", "exec"), {})
    submission = read_submission(tmp_path / "scores.txt")
    assert submission.scores is not None
    assert submission.digits == "000000"
    assert len(set(submission.scores.tolist())) == 13  # up to two norms in six blocks


@pytest.mark.parametrize("name", ["synthetic_a_x0_25", "market_x0_25"])
def test_tables_page_says_how_far_the_table_is(name: str) -> None:
    table, plan = Table.load(name), read_plan(ROOT / "tables" / f"{name}.yaml")
    number, planned = len(table.at()), len(plan.trials)
    said = rf"`{name}`[^`]* holds {f'all {number}' if number == planned else f'{number} of the {planned}'} trainings"
    assert re.search(said, (ROOT / "docs" / "tables.md").read_text())


def test_citation_is_whole() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["license"] == "MIT"
    assert citation["authors"] == [{"name": "The OSNet-NAS authors"}]
    assert {"message", "title", "abstract", "keywords", "type"} <= citation.keys()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert citation["version"] == version
    papers = [reference["url"].rpartition("/")[2] for reference in citation["references"]]
    assert papers == ["1905.00953", "1910.06827", "1910.10093"]
    assert all(paper in (ROOT / "README.md").read_text() for paper in papers)
    assert all({"type", "title", "authors", "year"} <= reference.keys() for reference in citation["references"])


def test_no_heading_comes_twice() -> None:
    for page in PAGES:
        headings = sorted(re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE))
        assert all(one != other for one, other in pairwise(headings)), page
