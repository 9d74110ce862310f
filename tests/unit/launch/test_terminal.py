"""What a terminal shows of a training run, and what a file gets."""

from __future__ import annotations

import io

from cosyflow.launch.terminal import Screen

LINES = (
    "[train llm] starts from random weights\n",
    "[train llm] epoch 1/4  step 5/10  loss 8.1  ETA 01:00\n",
    "[train llm] epoch 3/4  step 10/10  loss 7.1  ETA 00:20\n",
    "[train llm] epoch 3/4 done  loss 7.4\n",
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_file_gets_the_lines() -> None:
    stream = io.StringIO()
    screen = Screen(stream)
    for line in LINES:
        screen.show(line)
    screen.end()
    assert stream.getvalue() == "".join(LINES)


def test_a_terminal_gets_one_bar_drawn_in_place() -> None:
    terminal = Terminal()
    screen = Screen(terminal)
    for line in (*LINES, LINES[2]):
        screen.show(line)
    screen.end()
    clear = "\r\x1b[2K"
    third = " 75% |###############     | epoch 3/4  step 10/10  loss 7.1  ETA 00:20"
    assert terminal.getvalue() == (
        f"{LINES[0]} 12% |##                  | epoch 1/4  step 5/10  loss 8.1  ETA 01:00"
        f"{clear}{third}{clear}{LINES[3]}{third}\n"
    )
