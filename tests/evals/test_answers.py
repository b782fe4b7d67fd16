import pytest

from omni_jax.evals.naming import named_class, picture_naming
from omni_jax.evals.questions import no_answers, repeats, spoken_questions
from omni_jax.evals.transcripts import contains_words, normalise, word_errors

from .waves import call, reply

CLASSES = ("dog", "cat", "fish", "hat")


def test_normalise_takes_case_and_punctuation_off():
    assert normalise("It is a Dog.") == "it is a dog"
    assert normalise("MM-hm,  it's fine!") == "mm hm it's fine"


def test_word_errors_count_substitutions_insertions_and_deletions():
    assert word_errors("the dog runs home", "The dog runs home.") == (0, 4)
    assert word_errors("the dog runs home", "the cat runs") == (2, 4)
    assert word_errors("the dog", "see the big dog") == (2, 2)
    assert word_errors("the dog", "") == (2, 2)
    with pytest.raises(ValueError, match="no words"):
        word_errors("...", "a")


def test_only_whole_words_and_one_class_count():
    assert contains_words("that is a dog", "dog") and not contains_words("that is a doghouse", "dog")
    assert named_class("it is a dog", CLASSES) == "dog"
    assert named_class("it is a dog and a cat", CLASSES) is None
    assert named_class("what a day", CLASSES) is None


def test_naming_accuracy_and_its_shuffled_floor():
    labels = ["dog", "cat", "fish", "hat"] * 8
    calls = [call(label=label, factors={"picture": i, "voice": 0}) for i, label in enumerate(labels)]
    metrics, records = picture_naming(calls, [f"that is a {label}." for label in labels], CLASSES)
    assert metrics["picture_naming_accuracy"] == 1.0 and all(record["correct"] for record in records)
    assert metrics["picture_naming_accuracy_floor"] == pytest.approx(0.25, abs=0.05)
    always_dog, _ = picture_naming(calls, ["a dog"] * len(calls), CLASSES)
    assert always_dog["picture_naming_accuracy"] == always_dog["picture_naming_accuracy_floor"] == 0.25


def test_spoken_questions_want_the_whole_reply():
    calls = [
        call(expected="two comes after one", label="two"),
        call(expected="the sky is blue", label="blue"),
        call(expected="a dog has four legs", label="four"),
        call(expected="a cat says meow", label="meow"),
    ]
    said = ["Two comes after one.", "it is blue", "a dog has two legs", ""]
    metrics, records = spoken_questions(calls, [reply(text=text) for text in said])
    assert metrics["spoken_question_accuracy"] == 0.25
    assert metrics["spoken_question_word_error_rate"] == pytest.approx((0 + 2 + 1 + 4) / 17)
    assert metrics["spoken_question_accuracy_floor"] < 0.15
    assert [record["correct"] for record in records] == [True, False, False, False]


def test_repeat_word_error_rate_is_over_all_words():
    calls = [call(expected="the dog runs home"), call(expected="we see the big red boat")]
    metrics, _ = repeats(calls, [reply(text="the dog runs home"), reply(text="we see the big boat")])
    assert metrics["repeat_word_error_rate"] == pytest.approx(0.1)
    assert metrics["repeat_word_error_rate_floor"] >= 0.1


def test_no_answer_is_nothing_audible_three_seconds_after_the_user():
    calls = [call(((0, 1000),)) for _ in range(4)]
    replies = [reply(((800, 2500),)), reply(((3900, 5000),)), reply(((4100, 5000),)), reply(((200, 900),))]
    metrics, records = no_answers(calls, replies, silent_replies=[reply(), reply(((1500, 1900),))])
    assert [record["sound_ms"] for record in records] == [1000, 3900, None, None]
    assert metrics["no_answer_rate"] == 0.5
    assert metrics["no_answer_rate_floor"] == 0.5
