from data.world.streams import Streams


def test_a_name_always_gives_the_same_numbers():
    first = Streams(3).generator("feed", 1)
    Streams(3).generator("clicks", 1).random(1000)
    again = Streams(3).generator("feed", 1)
    assert (first.random(5) == again.random(5)).all()


def test_names_and_seeds_are_independent():
    names = [("feed", 1), ("feed", 2), ("clicks", 1), ("feed1",), ("feed", "1", "")]
    drawn = {Streams(seed).generator(*name).random() for seed in (0, 1) for name in names}
    assert len(drawn) == 2 * len(names)
