"""``python -m tests.mutation_score``: fails where the tests let too many mutants of the last run live."""

import json
import sys
from pathlib import Path

STATS = Path("mutants/mutmut-cicd-stats.json")
WANTED = 0.9


def main() -> int:
    """Exit code 1 under `WANTED`; a mutant that no test reaches lives, one that hangs is killed."""
    found = json.loads(STATS.read_text())
    total = found["total"] - found["skipped"]
    killed = found["killed"] + found["timeout"]
    sys.stdout.write(f"{killed} of {total} mutants killed; `mutmut results` names the others\n")
    return 0 if total and killed / total >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
