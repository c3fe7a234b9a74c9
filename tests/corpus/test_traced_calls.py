"""Reading a trace: which calls change the corpus, and how strace would count them."""

from cytolake.tests.faults.tracing import Call, parse, sample

TRACE = """\
10 openat(AT_FDCWD</work>, "/lake/a", O_RDONLY|O_CLOEXEC) = 3</lake/a>
10 openat(AT_FDCWD</work>, "/lake/a", O_WRONLY|O_CREAT|O_TRUNC, 0666) = 3</lake/a>
10 write(3</lake/a>, ""..., 66) = 66
11 write(4</lake/a>, ""..., 5 <unfinished ...>
10 write(3</lake/a>, ""..., 7) = 7
11 <... write resumed>) = 5
10 write(1</dev/pts/0>, ""..., 7) = 7
10 fsync(3</lake/a>) = 0
10 rename("/lake/.b.tmp", "/lake/b") = 0
10 rename("/lake/b", "/lake/c") = 0
11 unlinkat(5</lake/old>, "part", 0) = 0
11 openat(AT_FDCWD</work>, "/elsewhere", O_WRONLY|O_CREAT, 0666) = 3</lake/a>
11 write(4</lakeside/a>, ""..., 5) = 5
10 +++ exited with 0 +++
"""


def test_a_call_is_numbered_by_its_thread_its_name_and_its_path() -> None:
    assert list(parse(TRACE.splitlines(), "/lake/")) == [
        Call(name="openat", path="a", nth=2),  # the first only reads, and counts all the same
        Call(name="write", path="a", nth=1),
        Call(name="write", path="a", nth=1),  # of the other thread
        Call(name="write", path="a", nth=2),
        Call(name="fsync", path="a", nth=1),
        Call(name="rename", path=".b.tmp", nth=1),
        Call(name="rename", path="b", nth=2),  # it was the target of the first
        Call(name="unlinkat", path="old", nth=1),
    ]


def test_a_sample_takes_one_of_each_kind_before_it_takes_a_second() -> None:
    calls = [Call(name="write", path=f"segments/s/{n}.parquet", nth=1) for n in range(100)]
    calls += [
        Call(name="rename", path="cells/x.json", nth=1),
        Call(name="fsync", path="cells", nth=1),
    ]
    drawn = sample(calls, 4)
    assert sorted(call.name for call in drawn) == ["fsync", "rename", "write", "write"]
    assert drawn == sample(calls, 4)
    assert set(sample(calls, 1000)) == set(calls)
