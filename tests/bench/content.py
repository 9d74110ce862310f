"""How long digests of many small files take: at the first look, and at a second one, which reads no file.

    python tests/bench/content.py --files 400000

The second look is that of a fresh process: it loads the memory of digests from its file.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cosyflow.content import SETTLED_NS, Digests, combine

FILES_PER_FOLDER = 1000


def make_files(folder: Path, count: int, size: int) -> None:
    for number in range(count):
        inner = folder / f"{number // FILES_PER_FOLDER:04d}"
        if number % FILES_PER_FOLDER == 0:
            inner.mkdir(parents=True)
        (inner / f"utterance_{number:07d}.wav").write_bytes(number.to_bytes(8, "little") * (size // 8))


def look(files: str, cache: str) -> None:
    start = time.perf_counter()
    digests = Digests(cache).tree(files)
    seconds, computed = time.perf_counter() - start, time.process_time()
    start = time.perf_counter()
    combined = combine(digests)
    combining = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures = f"{seconds:.2f} s ({computed:.2f} s of processors)  combine {combining:.2f} s  {memory:.0f} MiB"
    print(f"{len(digests)} files  {figures}  {combined[:12]}")


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=400_000)
    parser.add_argument("--bytes", type=int, default=256, help="of each file")
    parser.add_argument("--look", nargs=2, metavar=("FILES", "CACHE"), help="only look at a folder, as a process does")
    args = parser.parse_args()
    if args.look:
        look(*args.look)
        return
    with tempfile.TemporaryDirectory() as temporary:
        files, cache = Path(temporary) / "files", Path(temporary) / "cache"
        print(f"{processor()}: makes {args.files} files of {args.bytes} bytes")
        make_files(files, args.files, args.bytes)
        time.sleep(SETTLED_NS / 1e9 + 0.1)
        for label in ("first look", "second look"):
            print(label, flush=True)
            subprocess.run([sys.executable, __file__, "--look", str(files), str(cache)], check=True)
        print(f"memory on disk {sum(path.stat().st_size for path in cache.iterdir()) / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
