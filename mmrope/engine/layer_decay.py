"""Layer-wise learning rates for transformer backbones."""

from typing import Any

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from ..registry import OPTIM_WRAPPER_CONSTRUCTORS

NO_DECAY_NAMES = ('cls_token', 'reg_token', 'pos_embed', 'freqs', 'relative_position_bias_table')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Optimiser constructor: learning rates fall from heads to patch embedding, and only matrices decay.

    The parameters of the layer at depth ``d`` of ``n`` (``backbone.get_layer_depth``) learn at
    ``lr * decay_rate ** (n - 1 - d)``, heads and necks at ``lr`` (Clark et al., *ELECTRA*, ICLR 2020; used in ViTDet).
    Norms, biases and all other vectors, embeddings and frequencies take no weight decay. A head's queries are matrices,
    and decay unless ``custom_keys`` say otherwise.

    ``paramwise_cfg`` holds ``decay_rate`` (in ``(0, 1]``; 1 by default), ``full_rate_blocks`` (0 by default) and
    MMEngine's ``custom_keys``. If ``full_rate_blocks`` is positive, that many of the last blocks learn at ``lr``, a
    lower block at ``lr * decay_rate ** b`` with ``b`` blocks above it, and the embeddings like the first block, as in
    EoMT (1 there, or the number of blocks that see queries). If several keys match a parameter's name, the longest
    wins. Its ``lr_mult`` multiplies the layer's learning rate; its ``decay_mult`` multiplies the base weight decay and
    overrides the rule above; other entries are passed to the optimiser. The groups are logged once, as a table.

    Raises:
        ValueError: for another key in ``paramwise_cfg``, a ``decay_rate`` or ``full_rate_blocks`` out of range, an
            optimiser without ``lr``, or a model whose backbone has no ``get_layer_depth``.
    """

    paramwise_cfg: dict[str, Any]

    def _validate_cfg(self) -> None:
        super()._validate_cfg()
        known = ('decay_rate', 'full_rate_blocks', 'custom_keys')
        unknown = sorted(set(self.paramwise_cfg) - set(known))
        if unknown:
            raise ValueError(f'paramwise_cfg must have no keys but {", ".join(known)}, got {", ".join(unknown)}')
        # MMEngine would put all parameters in one group if paramwise_cfg were empty.
        self.paramwise_cfg = {'decay_rate': 1.0, 'full_rate_blocks': 0, **self.paramwise_cfg}
        if not 0 < self.paramwise_cfg['decay_rate'] <= 1:
            raise ValueError(
                f'decay_rate of paramwise_cfg must be above 0 and at most 1, got {self.paramwise_cfg["decay_rate"]}'
            )
        if not isinstance(self.paramwise_cfg['full_rate_blocks'], int) or self.paramwise_cfg['full_rate_blocks'] < 0:
            raise ValueError(
                'full_rate_blocks of paramwise_cfg must be a non-negative int, '
                f'got {self.paramwise_cfg["full_rate_blocks"]!r}'
            )
        if self.base_lr is None:
            raise ValueError(f'optimizer must have an lr, got {dict(self.optimizer_cfg)}')

    def add_params(self, params: list[dict], module: nn.Module, **kwargs: Any) -> None:
        """Append the parameter groups of a whole model to ``params``, from the lowest layer to the heads."""
        backbone: Any = getattr(module, 'backbone', None)
        if not hasattr(backbone, 'get_layer_depth'):
            raise ValueError(
                f'{type(self).__name__} needs a model whose backbone has get_layer_depth, '
                f'got {type(module).__name__} with backbone {type(backbone).__name__}: set '
                "optim_wrapper.constructor='DefaultOptimWrapperConstructor' and leave out "
                'optim_wrapper.paramwise_cfg.decay_rate'
            )
        groups: dict[tuple, dict] = {}
        for name, param in module.named_parameters():
            if param.requires_grad:
                depth, num_layers = backbone.get_layer_depth(name, prefix='backbone.')
                options = self._options(name, param, self._layers_above(depth, num_layers))
                key = (depth, *(str(option) for option in options.items()))
                groups.setdefault(key, dict(params=[], **options))['params'].append(param)
        ordered = [groups[key] for key in sorted(groups, key=lambda key: key[0])]
        print_log(_table(ordered), logger='current')
        params.extend(ordered)

    def _layers_above(self, depth: int, num_layers: int) -> int:
        """Count how often ``decay_rate`` multiplies the rate of a depth."""
        full = self.paramwise_cfg['full_rate_blocks']
        if not full:
            return num_layers - 1 - depth
        blocks_above = num_layers - 2 - max(depth, 1)
        return blocks_above if blocks_above >= full else 0

    def _options(self, name: str, param: nn.Parameter, layers_above: int) -> dict:
        """Return the optimiser's options for a parameter."""
        custom_keys = self.paramwise_cfg.get('custom_keys', {})
        longest_first = sorted(sorted(custom_keys), key=len, reverse=True)
        custom = dict(custom_keys.get(next((key for key in longest_first if key in name), None), {}))
        lr_mult = custom.pop('lr_mult', 1.0) * self.paramwise_cfg['decay_rate'] ** layers_above
        options = {'lr': self.base_lr * lr_mult, **custom}
        if self.base_wd is not None:
            decays = param.ndim > 1 and not name.endswith(NO_DECAY_NAMES)
            options['weight_decay'] = self.base_wd * options.pop('decay_mult', float(decays))
        return options


def _table(groups: list[dict]) -> str:
    lines = [f'{"tensors":>8}{"parameters":>14}{"lr":>12}  other options']
    for group in groups:
        size = sum(param.numel() for param in group['params'])
        others = ', '.join(f'{key} {value}' for key, value in group.items() if key not in ('params', 'lr'))
        lines.append(f'{len(group["params"]):>8}{size:>14,}{group["lr"]:>12.4g}  {others}')
    return '\n'.join(('Parameter groups, from the lowest layer to the heads:', *lines))
