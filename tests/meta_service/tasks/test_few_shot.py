import dataclasses
import pickle
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from meta_service.data.cache import Images
from meta_service.episode import Batch, Signature
from meta_service.errors import UserError
from meta_service.tasks.few_shot import FewShot, class_table

CLASSES, PER_CLASS = 6, 10
# the value of a pixel tells which image it is of, its place whether it was turned
NUMBERED = np.arange(CLASSES * PER_CLASS, dtype=np.uint8)[:, None, None, None] * 4 + np.array(
    [[0, 1], [2, 3]], np.uint8
)
IMAGES = Images(NUMBERED, {f"train/{i}": PER_CLASS for i in range(CLASSES)}, "digest")


@dataclass(frozen=True)
class Numbered(FewShot):
    ways: int = 3
    shots: int = 2
    query_shots: int = 4
    loss_scale: str = "sum_over_k"
    transductive: bool = True
    turned: bool = False
    title = "Numbered"

    @property
    def signature(self):
        return Signature((1, 2, 2), self.ways)

    @property
    def queries(self):
        return self.query_shots

    def images(self):
        return IMAGES

    def table(self, split):
        return class_table(IMAGES, list(IMAGES.classes)[: 5 if split == "validation" else 6])

    def turns(self):
        return 4 if self.turned else 1


def values(batch: Batch) -> np.ndarray:
    return (batch.inputs[0] * 255).round().to(torch.int64).numpy()


def numbers(batch: Batch) -> list[int]:
    """Which images a batch holds."""
    return (values(batch).min(axis=(1, 2, 3)) // 4).tolist()


def test_the_same_seed_names_the_same_task():
    for one, other in zip(Numbered().sample(7, "train"), Numbered().sample(7, "train"), strict=True):
        assert torch.equal(one.inputs[0], other.inputs[0])
        assert torch.equal(one.targets, other.targets)


def test_other_seeds_name_other_tasks():
    assert len({tuple(numbers(Numbered().sample(seed, "train")[0])) for seed in range(50)}) > 45


def test_a_seed_of_64_bits_is_taken():
    assert len(numbers(Numbered().sample(2**64 - 1, "train")[0])) == 6


def test_shapes_and_types_are_those_promised():
    support, query = Numbered().sample(0, "train")
    assert support.inputs[0].shape == (6, *Numbered().signature.inputs)
    assert query.inputs[0].shape == (12, *Numbered().signature.inputs)
    assert support.inputs[0].dtype == query.inputs[0].dtype == torch.float32
    assert support.targets.dtype == query.targets.dtype == torch.int64


def test_examples_stand_class_by_class():
    support, query = Numbered().sample(0, "train")
    assert support.targets.tolist() == [0, 0, 1, 1, 2, 2]
    assert query.targets.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_pixels_are_divided_by_255():
    support, _ = Numbered().sample(0, "train")
    number = numbers(support)[0]
    np.testing.assert_array_equal(support.inputs[0][0].numpy(), NUMBERED[number] / np.float32(255))


@pytest.mark.parametrize("seed", range(20))
def test_no_image_comes_twice_in_a_task(seed):
    support, query = Numbered().sample(seed, "train")
    assert len(set(numbers(support) + numbers(query))) == 18


@pytest.mark.parametrize("seed", range(20))
def test_a_label_is_one_class_and_no_class_has_two(seed):
    support, query = Numbered().sample(seed, "train")
    drawn = [
        (label, number // PER_CLASS)
        for batch in (support, query)
        for label, number in zip(batch.targets.tolist(), numbers(batch), strict=True)
    ]
    assert len(set(drawn)) == 3
    assert len({original for _, original in drawn}) == 3


def test_every_class_and_image_is_drawn_about_equally_often():
    drawn = Counter(number for seed in range(2000) for number in numbers(Numbered().sample(seed, "train")[0]))
    assert len(drawn) == CLASSES * PER_CLASS
    # 12,000 draws of 60 images: 200 each, standard deviation 14
    assert all(130 < count < 270 for count in drawn.values())


def test_a_class_can_have_every_label():
    labels = Counter(numbers(Numbered().sample(seed, "train")[0])[0] // PER_CLASS for seed in range(300))
    assert len(labels) == CLASSES


def test_a_split_has_only_its_own_classes():
    drawn = {number // PER_CLASS for seed in range(200) for number in numbers(Numbered().sample(seed, "validation")[0])}
    assert drawn == {0, 1, 2, 3, 4}


def test_the_transductive_query_is_without_context():
    support, query = Numbered().sample(0, "train")
    assert len(support.inputs) == len(query.inputs) == 1


def test_the_inductive_query_brings_the_support_set_as_context():
    support, query = Numbered(transductive=False).sample(0, "train")
    assert len(support.inputs) == 1
    assert torch.equal(query.inputs[1], support.inputs[0])
    assert torch.equal(query.inputs[0], Numbered().sample(0, "train")[1].inputs[0])


def test_more_query_examples_keep_the_classes_and_their_count_changes():
    tasks = dataclasses.replace(Numbered(), query_shots=8)
    assert len(tasks.sample(0, "train")[1].targets) == 24


@pytest.mark.parametrize("seed", range(20))
def test_all_examples_of_a_class_are_turned_alike(seed):
    support, query = Numbered(turned=True).sample(seed, "train")
    for label in range(3):
        turned = [image[0] % 4 for batch in (support, query) for image in values(batch)[batch.targets == label]]
        assert all((image == turned[0]).all() for image in turned)
        assert any((np.rot90([[0, 1], [2, 3]], k) == turned[0]).all() for k in range(4))


def test_all_four_turns_come_about_equally_often():
    firsts = (values(Numbered(turned=True).sample(seed, "train")[0])[0, 0] % 4 for seed in range(800))
    turns = Counter(str(image.tolist()) for image in firsts)
    assert len(turns) == 4
    assert all(140 < count < 260 for count in turns.values())


def test_turned_tasks_consist_of_the_same_images_as_others():
    assert numbers(Numbered(turned=True).sample(3, "train")[1]) == numbers(Numbered().sample(3, "train")[1])


LOGITS = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [3.0, 0.0, 1.0], [0.0, 0.0, 5.0], [0, 4, 0]])
TARGETS = torch.tensor([0, 0, 1, 1, 2, 2])
BATCH = Batch((LOGITS,), TARGETS)


def by_hand() -> torch.Tensor:
    """The cross-entropy of each example."""
    return torch.stack([LOGITS[i].exp().sum().log() - LOGITS[i, TARGETS[i]] for i in range(6)])


def test_the_mean_loss_is_the_mean_cross_entropy():
    torch.testing.assert_close(Numbered(loss_scale="mean").loss(lambda x: x, BATCH), by_hand().mean())


def test_the_summed_loss_is_the_sum_divided_by_shots():
    torch.testing.assert_close(Numbered(shots=2).loss(lambda x: x, BATCH), by_hand().sum() / 2)


def test_on_the_support_set_the_summed_loss_is_ways_times_the_mean():
    summed, mean = (Numbered(loss_scale=scale).loss(lambda x: x, BATCH) for scale in ("sum_over_k", "mean"))
    torch.testing.assert_close(summed, 3 * mean)


def test_the_context_reaches_the_model():
    tasks = Numbered(loss_scale="mean")
    batch = Batch((LOGITS, 2 * LOGITS), TARGETS)
    torch.testing.assert_close(
        tasks.loss(lambda x, context: x - context, batch), F.cross_entropy(LOGITS - 2 * LOGITS, TARGETS)
    )


def test_the_metric_is_the_share_that_is_right():
    # examples 0 and 4 are right; of the equal logits of example 2 the first wins, which is wrong
    torch.testing.assert_close(Numbered().metric(lambda x: x, BATCH), torch.tensor(2 / 6))


def test_a_perfect_prediction_has_metric_one():
    assert Numbered().metric(lambda x: F.one_hot(TARGETS, 3).float(), BATCH) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", ["sum_over_k", "mean"])
def test_loss_and_metric_of_stacked_tasks_are_those_of_each(dtype, scale):
    tasks = Numbered(loss_scale=scale)
    logits = torch.stack([LOGITS, -LOGITS, LOGITS.roll(1, 0)]).to(dtype)
    stacked = Batch((logits,), TARGETS.expand(3, -1))
    for function in (tasks.loss, tasks.metric):
        together = torch.func.vmap(lambda batch, f=function: f(lambda x: x, batch))(stacked)
        alone = torch.stack([function(lambda x: x, Batch((one,), TARGETS)) for one in logits])
        torch.testing.assert_close(together, alone)
        assert together.dtype == dtype


def test_the_loss_is_twice_differentiable_under_vmap():
    tasks = Numbered(loss_scale="mean")
    x = torch.randn(2, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def second(x: torch.Tensor) -> torch.Tensor:
        loss = lambda w: tasks.loss(lambda x: x * w, Batch((x,), TARGETS))  # noqa: E731
        return torch.func.jacrev(torch.func.grad(loss))(torch.ones(3, dtype=torch.float64))

    torch.testing.assert_close(torch.func.vmap(second)(x), torch.stack([second(one) for one in x]))


def test_prepare_gives_the_digest_of_the_content():
    assert Numbered().prepare() == "digest"


def test_more_ways_than_a_split_has_classes_are_refused():
    with pytest.raises(UserError) as error:
        Numbered(ways=6).prepare()
    assert str(error.value) == ("tasks.ways: Numbered split 'validation' has 5 classes, 6 asked; use tasks.ways <= 5")


def test_as_many_ways_as_classes_are_fine():
    assert Numbered(ways=5).prepare() == "digest"
    assert len(set(numbers(Numbered(ways=5).sample(0, "validation")[0]))) == 10


def test_more_examples_than_a_class_has_images_are_refused():
    with pytest.raises(UserError) as error:
        Numbered(shots=5, query_shots=6).prepare()
    assert str(error.value) == (
        "tasks.shots: Numbered class 'train/0' has 10 images, 5 shots + 6 query examples asked; use at most 10 together"
    )


def test_all_images_of_a_class_can_be_asked():
    tasks = Numbered(shots=5, query_shots=5)
    tasks.prepare()
    assert len({number for batch in tasks.sample(0, "train") for number in numbers(batch)}) == 30


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("ways", 1, "tasks.ways is 1, expected at least 2"),
        ("shots", 0, "tasks.shots is 0, expected at least 1"),
        ("query_shots", 0, "tasks.query_shots is 0, expected at least 1"),
        ("loss_scale", "sum", "tasks.loss_scale is 'sum', expected 'sum_over_k' or 'mean'"),
    ],
)
def test_a_senseless_setting_is_refused_when_it_is_made(field, value, message):
    with pytest.raises(UserError) as error:
        Numbered(**{field: value})
    assert str(error.value) == message


def test_a_distribution_travels_as_its_settings_alone():
    tasks = Numbered()
    tasks.sample(0, "train")
    assert len(pickle.dumps(tasks)) < 300
    assert pickle.loads(pickle.dumps(tasks)) == tasks
