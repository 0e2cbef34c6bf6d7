"""From the weights of a whole upstream classifier to those of MMPreTrain's ``ImageClassifier``."""

from collections.abc import Mapping

from torch import Tensor

HEAD = ('head.weight', 'head.bias')


def classifier_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a backbone and its linear head to ``backbone.*`` and ``head.fc.*``, the names of ``ImageClassifier``.

    Args:
        state: Weights under mmrope's names, and of the head ``head.weight``, ``(classes, C)``, and ``head.bias``,
            ``(classes,)``.

    Returns:
        The same tensors, in the same order, for an ``ImageClassifier`` with a ``LinearClsHead``.

    Raises:
        ValueError: If the head is missing.
    """
    missing = [key for key in HEAD if key not in state]
    if missing:
        raise ValueError(f'state must hold the head of the classifier ({", ".join(HEAD)}), but has no {missing[0]}')
    return {f'head.fc.{key[5:]}' if key in HEAD else f'backbone.{key}': value for key, value in state.items()}
