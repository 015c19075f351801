"""Names of the classes of well-known data sets, in the order of their labels. Records hold numbers only."""

from __future__ import annotations

_NAMES = {
    "cifar10": "airplane automobile bird cat deer dog frog horse ship truck",
    "cifar100": (
        "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can "
        "castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin "
        "elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster "
        "man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck "
        "pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk "
        "skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger "
        "tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"
    ),
    "svhn": "0 1 2 3 4 5 6 7 8 9",
    "fashion_mnist": "T-shirt trouser pullover dress coat sandal shirt sneaker bag ankle_boot",
}
_NAMES["fashion_mnist_mini"] = _NAMES["fashion_mnist"]


def class_names(dataset: str, classes: int) -> list[str]:
    """Names of all labels; numbers where the data set is not known or has another number of classes."""
    known = [name.replace("_", " ") for name in _NAMES.get(dataset, "").split()]
    return known if len(known) == classes else [str(k) for k in range(classes)]


def known_classes(dataset: str) -> int:
    """How many classes a well-known data set has; 0 for others."""
    return len(_NAMES.get(dataset, "").split())
