"""``python -m augment plan.toml``: the job that a Ray cluster runs.

It is ``ctflow augment run``, with the same options; within ``ray job submit`` it finds
the cluster by itself.
"""

import sys

from ctflow_fed.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["augment", "run"]
    main()
