"""A fit in a process of its own, which says how far it is; for signals.

python child.py CHECKPOINT RESULT CHAINS CORES
"""

import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))


def main():
    checkpoint, result, chains, cores = sys.argv[1:]
    import pymc_saem as ps
    from robustness.signals import OPTIONS
    from robustness.stored import build

    model, callback = build(), None
    if cores == "1":

        def callback(chain, iteration, estimates, stats):
            print("iteration", chain, iteration, flush=True)

    print("ready", flush=True)
    try:
        fit = ps.fit_saem(
            model, chains=int(chains), cores=int(cores), callback=callback, checkpoint=ps.Checkpoint(checkpoint, iterations=5), **OPTIONS,
        )  # fmt: skip
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        sys.exit(3)
    print("returned", flush=True)
    ps.save(fit, result)
    print("saved", flush=True)


if __name__ == "__main__":
    main()
