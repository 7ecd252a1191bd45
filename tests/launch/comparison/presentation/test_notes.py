"""The notes of a comparison, on systems and learning rates worked out by hand."""

from launch.comparison.presentation.notes import tuning_notes


def test_a_note_names_the_systems_whose_learning_rate_dev_did_not_choose_or_chose_at_an_end():
    tuning = {
        "a-transformer": {1.0: 0.5, 0.5: 0.5, 2.0: 0.5},
        "b-transformer": {1.0: 0.5, 0.5: 0.4, 2.0: 0.6},
        "c-transformer": {1.0: 0.5, 0.5: 0.5, 2.0: 0.6},
        "d-hashed": {1.0: 0.5, 0.5: 0.7, 2.0: 0.6},
    }
    same, largest, smallest = tuning_notes(tuning)
    assert "same at every learning rate of the grid for a-transformer, so" in same
    assert "largest learning rate of the grid was the best on dev for b-transformer, c-transformer; a larger" in largest
    assert "smallest learning rate of the grid was the best on dev for d-hashed; a smaller" in smallest


def test_a_choice_within_the_grid_and_a_grid_of_one_rate_have_no_note():
    assert tuning_notes({"a-transformer": {1.0: 0.6, 0.5: 0.5, 2.0: 0.5}, "b-transformer": {1.0: 0.5}}) == []
    assert tuning_notes({"a-transformer": {1.0: 0.6, 0.5: 0.5, 2.0: 0.6}}) == []  # the best two are both taken
    assert tuning_notes({}) == []
