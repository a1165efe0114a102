"""What the process asks of the system."""

import platform
import subprocess
import sys

import pytest

from alexnet_jax.machine import processor
from alexnet_jax.ops import backend

FAULTS = """
import resource, sys, threading
import numpy as np
from alexnet_jax.machine import keep_freed_memory

how, where = sys.argv[1:]
if how != "give back":
    keep_freed_memory(one_heap=how == "one heap")

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(10_000_000)  # more than a heap of another thread holds
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def twice():
    print(faults(), faults())

if where == "first thread":
    twice()
else:
    thread = threading.Thread(target=twice)
    thread.start()
    thread.join()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")
@pytest.mark.parametrize(
    ("how", "where", "kept"),
    [
        ("one heap", "first thread", True),
        ("one heap", "another thread", True),
        ("several heaps", "first thread", True),
        ("give back", "first thread", False),  # else the others show nothing
        ("give back", "another thread", False),
    ],
)
def test_freed_memory_is_kept_and_not_mapped_again(how, where, kept):
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, how, where], capture_output=True, text=True, check=True
    )
    first, second = map(int, done.stdout.split())
    assert second < first / 100 if kept else second > first / 2


TRIMMED = """
import sys
import jax.monitoring
from alexnet_jax.machine import keep_freed_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])

keep_freed_memory()
before = resident()
pieces = [bytes(1000) for _ in range(200_000)]
full = resident()
end = pieces.pop()  # behind all others, so that they are no end of the heap
del pieces
event = "/jax/core/compile/" + sys.argv[1]
jax.monitoring.record_event_duration_secs(event, float(sys.argv[2]))
print((full - resident()) / (full - before))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")
@pytest.mark.parametrize(
    ("event", "seconds", "given_back"),
    [
        ("backend_compile_duration", 3.0, True),
        ("backend_compile_duration", 0.1, False),
        ("jaxpr_trace_duration", 3.0, False),
    ],
)
def test_what_compiling_a_large_program_frees_is_given_back(event, seconds, given_back):
    done = subprocess.run(
        [sys.executable, "-c", TRIMMED, event, str(seconds)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (float(done.stdout) > 0.9) == given_back


def test_what_the_first_processor_is_and_can_do(tmp_path):
    told = tmp_path / "cpuinfo"
    told.write_text(
        "processor\t: 0\nmodel name\t: A CPU: fast\nflags\t\t: fma avx2\npower management:\n\n"
        "processor\t: 1\nmodel name\t: Another\nflags\t\t: sse\n"
    )
    facts = processor(str(told))
    assert (facts["model name"], facts["flags"]) == ("A CPU: fast", "fma avx2")
    assert processor(str(tmp_path / "none")) == {}


@pytest.mark.parametrize(
    ("facts", "does"),
    [
        ({"flags": "fma avx512_bf16 x"}, True),
        ({"flags": "amx_bf16"}, True),
        ({"flags": "avx512_bf16_not avx512f"}, False),
        ({}, False),
    ],
)
def test_a_cpu_multiplies_bfloat16_where_it_is_told_to_have_instructions(facts, does, monkeypatch):
    monkeypatch.setattr(backend, "processor", lambda: facts)
    assert backend.cpu_multiplies_bfloat16() == does
