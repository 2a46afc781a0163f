"""`kvlab check`: what each flaw is found by, with the method and the call named; what it refuses; its exit codes."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "flow"))
from kvlab import PLUGINS, SOURCE, folder, main, run  # noqa: E402

# Of each flaw: the check that finds it, and what the line says.
CODEC = {
    "refuses_all": ("accepts", "with its default parameters it refuses every dtype, head_dim and role"),
    "huge_state": ("accepts", "its state_bytes are above 1 TiB"),
    "rounds_otherwise": ("finite", "encode leaves another rounding mode behind"),
    "exits": ("accepts", "flawed_codec's create"),
    "dies_at_the_end": ("accepts", "flawed_codec's destroy"),
    "reads_beyond_its_input": ("finite", "flawed_codec's encode"),
    "writes_beyond": ("finite", "encode wrote beyond its buffer of 328 bytes"),
    "writes_its_input": ("finite", "flawed_codec's encode"),
    "reads_beyond_its_block": ("finite", "flawed_codec's decode"),
    "decodes_infinity": ("finite", "a decoded value is not finite"),
    "hangs": ("finite", "flawed_codec's encode"),
    "decodes_the_first": ("parts", "gives other rows than decode of all"),
    "counts": ("repeats", "encode gives other bytes for the same tokens"),
    "knows_its_thread": ("repeats", "encode gives other bytes for the same tokens, or from another thread"),
    "ignores_strides": ("layout", "encode gives other bytes where the rows lie further apart"),
    "gathers_the_first": ("gather", "what gather leaves decodes to other rows"),
    "scores_are_off": ("attention", "scores differ from those of the decoded rows by 0.01"),
    "trusts_its_bytes": ("damage", "flawed_codec's decode"),
}
SELECTOR = {
    "refuses_all": ("scores", "it refuses every setting"),
    "is_nan": ("scores", "the score of token 0 is NaN"),
    "reads_what_it_does_not_declare": ("scores", "flawed_selector's scores"),
    "writes_positions": ("scores", "flawed_selector's scores"),
    "hangs": ("scores", "flawed_selector's scores"),
    "counts": ("repeats", "scores are others for the same tokens"),
    "depends_on_others": ("scope", "it declares KVLAB_SCOPE_TOKEN, but token"),
}


def expect(plugin, flaws):
    for flaw, (name, sentence) in flaws.items():
        result = run("check", PLUGINS / f"{plugin}.so", "--seconds", "3" if flaw == "hangs" else "60",
                     "--only", name, env={"KVLAB_TEST_FLAW": flaw})
        assert result.returncode == 1, (flaw, result.stdout, result.stderr)
        lines = [line for line in result.stdout.splitlines() if line.startswith(f"{plugin}: check '{name}'")]
        assert len(lines) == 1 and sentence in lines[0], (flaw, result.stdout)


def test_each_flaw_of_a_codec_is_found():
    expect("flawed_codec", CODEC)


def test_each_flaw_of_a_selector_is_found():
    expect("flawed_selector", SELECTOR)
    liar = run("check", PLUGINS / "keydiff_liar.so")
    assert liar.returncode == 1 and "KVLAB_SCOPE_PRESENT is for such scores" in liar.stdout, liar.stdout


def test_without_its_flaw_each_passes():
    for plugin in ("flawed_codec", "flawed_selector", "keydiff"):
        result = run("check", PLUGINS / f"{plugin}.so")
        assert result.returncode == 0 and result.stdout.endswith(" checks, ok\n"), result.stdout


def test_words_that_name_nothing_are_refused_before_work():
    def refused(*words, sentence):
        result = run("check", *words)
        assert result.returncode == 2 and len(result.stderr.splitlines()) == 1, result.stderr
        assert sentence in result.stderr and not result.stdout, result.stderr

    refused("randon", sentence="there is no method 'randon'; the nearest valid name is 'random'")
    refused("random", "/nowhere.so", sentence="/nowhere.so: there is no such file")
    refused("random", "--only", "scopes", sentence="there is no check 'scopes'")
    with folder() as empty:
        refused(empty, sentence="it holds no library")


def test_a_library_that_is_refused_is_told():
    result = run("check", PLUGINS / "refused" / "refused_version.so")
    assert result.returncode == 1 and "refused: it was built for plugin ABI 99" in result.stdout, result.stdout


main(globals())
