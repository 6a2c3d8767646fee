"""What the page of studies says around its numbers."""

from search.compare import ABOUT_RANDOM_MEAN
from search.confirm import CONFIRM_SEEDS
from search.describe_searches import CHILD_IMAGES
from search.studies import HELD_OUT
from search.study_drawn import NUM_CONFIRMED, NUM_CONFIRMED_ALL, NUM_DRAWS, NUM_RUNS

INTRODUCTION = """\
# Studies

```
python -m tools.train_table tables/market_x0_25.yaml --root $DATA   # makes or completes a table
python -m tools.write_studies                                       # this page and its pictures
```

This page is generated, from nothing but what lies in [tables](../tables/README.md): their rows, and the searches and
comparisons beside them (and one measured ratio of costs, which is said where it is used). The commands of the
[searches](tables.md#a-search-at-a-tables-setting) and the [comparisons](search.md#measured) stand elsewhere. IN is
instance normalisation; six digits name a network by [the candidates](search.md) of its
six blocks, each of which has a place for IN inside and one outside. A budget is a number of epochs. `heldout_new` are
people and cameras that no network was trained on; all scores are explained [there](../tables/README.md#columns).
Orders of architectures are compared by Kendall's tau-b (1: the same, 0: unrelated). Unless a section says otherwise,
brackets hold the 95 % interval of a bootstrap over architectures. The estimated parts of fold and seed are subtracted
from all scores first; the intervals take these parts as known.

## The tables
"""
ABOUT_BUDGETS = """\
Tau of the order at each budget with the order by the unseen domains at the largest budget. Both orders come from
the same trainings, so shared luck counts as agreement. The last column compares one seed's order at the budget
with another's at the end, over the same architectures: how far an order can be trusted at all (–: too few
architectures were trained twice). What a search can see are the held-out images: for these it is also shown by how
much tau at a budget is above that at the end.
"""
ABOUT_SIGNALS = f"""\
Tau of each score with the mean over the unseen domains, all at the largest budget and of the same trainings; and
by how much it is above that of `{HELD_OUT}`, the same architectures drawn for both. The last column compares the
score of one training with the unseen domains of another one of the same architecture, which shares neither seed
nor fold, so that chance in training does not count as agreement. It is only over the architectures that were trained
several times, and over single trainings, so that it is no part of the first column (–: too few). "One unseen
domain" stands for a held-out source, as a search over several data sets could have: each domain in turn foretells the
mean of the others, all together. A search that is judged by these tables may use `heldout_*` scores alone.
"""
ABOUT_DRAWN = f"""\
Searches that train networks alone need not be run: their trainings are drawn from the rows of a table, from its
orthogonal array and its random networks, not from those that were picked by hand (the published ones, and one
candidate throughout). They decide by held-out people and cameras and are judged by the unseen domains at the
largest budget: tau of their order, by how much mAP their answer is behind the best of the whole table, and what
share of its other networks it is better than. Shown are the mean and, in brackets, the range of 95 % of such
searches among these rows; chance in the rows themselves is not taken out. Images are those that a whole search
passes forward and backward.

The best of some random networks is exact, over all draws with replacement. A fit is the [mixed
model](search.md#the-three) of a designed search; {NUM_DRAWS} were made, each of {NUM_RUNS} networks drawn without
replacement, and tau is over the others. A designed search fits an orthogonal array, which says more than as many
drawn at random; and two draws share many networks, so independent searches would spread more. A fit answers with
a network that it has not seen.

In a confirmed search {NUM_CONFIRMED} networks are trained anew, {CONFIRM_SEEDS} times each, and the best by
held-out images is the answer: the fit's first, the best of those it was made of, and the fit's next; where it
says so, also OSNet with an IN stem and OSNet-AIN, as the designed search has them. (That one also takes the simplest
that is not worse, and chooses from all 4,096.) The table's trainings stand in for the new ones. So a confirmed answer
is judged by the very training that it was chosen by, which flatters it, as it does the best of random networks.
"""
ABOUT_SEARCHES = f"""\
Each row is one method, over several seeds. *Orders*: tau is the mean ± 95 % over the seeds (Student's t), for these
architectures alone; in brackets, the bootstrap's interval over architectures, for these searches alone. The same holds
for how far it is above the order of the fewest norms (which has no seeds) and above `gumbel` (± paired where seeds and
folds are the same, Welch's otherwise). Each comparison is at 95 % by itself. Where all seeds gave one value there is
no ±, but "each". Of the places and blocks that a search calls decided it is said how often the table's fit decides the
same (right), otherwise (wrong), or nothing (open), and how many pairs of seeds that call the same block decided name
the same candidate. An image costs a super-network more than a
child: several times as much with four separate candidates, less with shared ones ([costs](search.md#measured)).

*Answers*: "its first" and "its first ten" are taken among the trained networks, not all 4,096; their ± are rough, as
such values have an end and come in steps. The last two columns are of the networks that the searches chose: the share
of the table's other networks that they are better than, once with the choice predicted by a fit of these others (also
where it was trained), once by the trainings of the choices that the table has. A prediction has no noise, so it is
nearer to the mean: the two columns must not be compared with each other. Brackets show where the share of a choice
would lie if it were trained once (95 %; the mean of the ends over the seeds).

*All seeds together*: one order for each method, by the mean of the ranks that its searches give, as `tools.agreement`
makes it of several searches, and its first of all 4,096, not confirmed. *Above their mean*: above what these searches
have by themselves. Intervals are the bootstrap's over architectures, for these searches alone, in the last column for
one training; nothing here says how far other seeds would change them, since each method has only one such order.

For comparison: a random order, the mean and the range of at least 95 %. The fewest instance norms first, a direction
that trials before the table had suggested; its answer is the network without IN in its blocks. The true order, what an
order without any error would score: noise of the trainings keeps even that from agreeing with them. The noise is
estimated where networks were trained several times, and from all residuals where networks seem to share nothing beyond
their candidates' means ([rather too low than too high](tables.md#judge-a-search)); the brackets show how far the mean
moves over the noise's 95 % interval, and by chance a search may do better (for its answer stands the best of all
predictions). The best by held-out images of as many random networks as cost what `gumbel` does, whose image costs what
{CHILD_IMAGES} cost a child ([measured](search.md#measured), on drawn images): the mean and the range of 95 %, of which
the last column is flattered as [above](#which-search-simulated-searches), where the best of {NUM_CONFIRMED_ALL}, as
many trainings as a `design` makes, stands too.

`gumbel` is the paper's method. It and the other super-networks ran [at the table's
setting](tables.md#a-search-at-a-tables-setting), which was fixed before any was judged; which of them is recommended
was chosen afterwards, by these very rows. `design` is a designed search of trainings of five epochs: its model of the
effects was chosen while looking at one training of each network of the drawn table, and its five epochs for their
cost, while looking at the simulated searches (by the margin above, ten would be safe); it was run after that.
"""
ABOUT_PLACES = """\
mAP with IN at a place minus mAP without it, averaged over all other choices, at the largest budget. Intervals are
Student's t, of each place by itself; bold: the sign is sure at 5 % over the column's twelve places (Holm). How
well the fit orders networks is measured by leaving each out; the intervals take the predictions as given, and
left-out members of an orthogonal array are those that the others say least about, so tau is somewhat higher for
networks outside the table. Scores of named networks are means of their trainings, minus the parts of fold and
seed, which are estimates.
"""
ABOUT_COMPARISONS = f"""\
Networks that `tools.compare_genotypes` trained alike, each alone: mean mAP ± 95 % over the seeds (Student's t),
and differences to the first network, paired by seed, each at 95 % by itself. The first one is what a single search
found, that with seed 1. {ABOUT_RANDOM_MEAN}
"""
