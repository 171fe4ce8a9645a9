"""The training campaign: weights that ship, trained in short leases of an accelerator.

A lease begins with nothing on the machine and ends with its disk; what must last is carried home.
Four cards train four runs and more for as long as one would. Any session goes on from the files here.

| step | where | what |
| --- | --- | --- |
| 1 | here | ``pack.py``: training images as AVIF, without those of ``split.py``; tar them in pieces |
| 2 | here | ``make_second.py``: the second validation set, by place and source |
| 3 | here | rehearse each run: ``train.py NAME --micro --steps 6 ...`` |
| 4 | there | ``setup.sh`` after each transfer: packages, code, weights and images into /tmp |
| 5 | there | ``launch.py``: the runs of ``plan.py``, one a card or two, on their own until they end |
| 6 | there | ``collect.py``: averaged weights in half precision, in pieces |
| 7 | here | ``score.py``: both sets, damaged and clean, and plain ground; then look at the pictures |
| 8 | here | ``ship.py``: what beats what ships goes into the package |
| 9 | here | note what was run, on what, and what came out: ``docs/results/campaign/ledger.jsonl`` |

Learned on the way: recordings of passes want few shapes (each new one costs a plan of all
convolutions), a run of 4 to 5 minutes makes a sharp model from a good L1 model, and an adversary must
not begin before LPIPS has done its work.
"""
