"""Folders with class maps become a data set, whatever their layout; what is wrong is one sentence."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmrope.datasets.class_maps import LoadAnnotations
from mmrope.datasets.segmentation_folders import read_segmentation_folder, read_table
from tests.helpers import own_data

LAYOUTS = ('folders', 'parts', 'lists', 'flat')
KINDS = ('grey', 'palette', 'colours')


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('kind', KINDS)
def test_every_layout_and_kind_of_maps(tmp_path: Path, layout: str, kind: str) -> None:
    data = read_segmentation_folder(own_data.segmentation(tmp_path, layout, kind), val_fraction=0.4, seed=1)
    assert data.classes == ('background', 'green', 'blue') and data.suffixes == ('.png', '.png')
    assert data.values == ((255, 0, 1, 2) if kind == 'colours' else (0, 1, 2, 255))
    assert (data.colours is None) == (kind != 'colours') and len(data.palette) == (3 if kind == 'colours' else 0)
    train, val = data.parts['train'], data.parts['val']
    assert sorted(train.names + val.names) == list('01234') and len(val.names) == 2
    assert train.whole == val.whole == (layout in ('folders', 'parts'))
    assert layout == 'flat' or val.names == ('3', '4')
    for part in (train, val):
        assert all((Path(part.images) / f'{name}.png').is_file() for name in part.names)
        assert all((Path(part.maps) / f'{name}.png').is_file() for name in part.names)
    assert {'void is ignored (its pixels become 255)', 'background is a class of its own, 0'} <= set(data.notes)


@pytest.mark.parametrize('kind', KINDS)
def test_maps_are_loaded_as_the_numbers_of_the_classes(tmp_path: Path, kind: str) -> None:
    data = read_segmentation_folder(own_data.segmentation(tmp_path, 'flat', kind))
    _, numbers = own_data.draw(tmp_path / 'again.png', 2)
    expected = numbers.copy()
    expected[:4] = 255
    step = LoadAnnotations(data.values, data.colours)
    sample = dict(seg_map_path=str(tmp_path / 'annotations' / '2.png'), seg_fields=[], reduce_zero_label=False)
    assert np.array_equal(step(sample)['gt_seg_map'], expected)


def test_a_colour_of_no_class_is_named_before_and_in_a_training(tmp_path: Path) -> None:
    path = own_data.segmentation(tmp_path, 'flat', 'colours') / 'annotations' / '3.png'
    data = read_segmentation_folder(tmp_path)
    pixels = np.array(Image.open(path))
    pixels[20, 30] = (1, 2, 3)
    Image.fromarray(pixels).save(path)
    with pytest.raises(ValueError, match='3.png has the colour 1 2 3, which .*classes.txt does not list: list it'):
        read_segmentation_folder(tmp_path)
    with pytest.raises(ValueError, match='3.png has the colour 1 2 3, which is no class'):
        LoadAnnotations(data.values, data.colours)(dict(seg_map_path=str(path), seg_fields=[]))


def test_colours_without_a_table_ask_for_one(tmp_path: Path) -> None:
    own_data.segmentation(tmp_path, 'flat', 'colours')
    (tmp_path / 'classes.txt').write_text('void\nbackground\ngreen\nblue\n')
    with pytest.raises(ValueError, match='has the colour 0 0 0.* write a colour behind each name in classes.txt'):
        read_segmentation_folder(tmp_path)


def test_values_that_are_classes_need_no_mapping(tmp_path: Path) -> None:
    own_data.segmentation(tmp_path, 'flat', 'grey')
    (tmp_path / 'classes.txt').write_text('background\ngreen\nblue\n')
    assert read_segmentation_folder(tmp_path).values is None


TABLE_LINES = {
    'classes.txt': '\ufeffsky 1 2 3\n\ntraffic light 4 5 6\n',
    'labelmap.txt': '# label:color_rgb:parts:actions\nsky:1,2,3::\ntraffic light:4,5,6::\n',
    'class_dict.csv': 'name,r,g,b\nsky, 1, 2, 3\ntraffic light, 4, 5, 6\n',
}


@pytest.mark.parametrize('name', TABLE_LINES)
def test_tables_of_common_tools(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(TABLE_LINES[name])
    table = read_table(tmp_path)
    assert (table.names, table.colours) == (['sky', 'traffic light'], [(1, 2, 3), (4, 5, 6)])


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('', 'names no class'),
        ('a\nb\na\n', 'names the class a twice'),
        ('a 1 2 3\nb\n', 'colours for some classes only; without one are b'),
        ('a 1 2 3\nb 1 2 3\n', 'two classes the same colour'),
        ('a\nvoid\n', 'names 1 class beside void; two are needed'),
    ],
)
def test_a_wrong_table_is_a_sentence(tmp_path: Path, text: str, words: str) -> None:
    own_data.segmentation(tmp_path, 'flat', 'grey')
    (tmp_path / 'classes.txt').write_text(text)
    with pytest.raises(ValueError, match=words):
        read_segmentation_folder(tmp_path)


def test_missing_parts_of_the_layout_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='there is no folder'):
        read_segmentation_folder(tmp_path / 'none')
    with pytest.raises(ValueError, match='no classes.txt: write the name of the class with the value 0'):
        read_segmentation_folder(tmp_path)
    own_data.segmentation(tmp_path, 'flat', 'grey')
    (tmp_path / 'images' / '1.png').rename(tmp_path / 'images' / '1.jpg')
    with pytest.raises(ValueError, match='images must have one suffix.*1.jpg'):
        read_segmentation_folder(tmp_path)
    (tmp_path / 'images').rename(tmp_path / 'inputs')
    with pytest.raises(ValueError, match='no folders images and annotations'):
        read_segmentation_folder(tmp_path)


@pytest.mark.parametrize('name', ['classes.txt', 'val.txt'])
def test_a_file_in_another_encoding_is_named(tmp_path: Path, name: str) -> None:
    (own_data.segmentation(tmp_path, 'lists', 'grey') / name).write_bytes('Stra\xdfe'.encode('latin-1'))
    with pytest.raises(ValueError, match=f'{name} must be text in UTF-8'):
        read_segmentation_folder(tmp_path)


def test_a_list_with_an_image_that_does_not_exist_is_named(tmp_path: Path) -> None:
    (own_data.segmentation(tmp_path, 'lists', 'grey') / 'val.txt').write_text('3\n7\n')
    with pytest.raises(ValueError, match=r'val.txt names images that do not exist \(\*.png\): 7'):
        read_segmentation_folder(tmp_path)


def beside(root: Path, parts: bool = True) -> Path:
    """Maps beside the images, as Roboflow exports them: 0.png, 0_mask.png, _classes.csv, in a folder for each part."""
    own_data.segmentation(root, 'flat', 'grey')
    for index in range(5):
        folder = root / ('valid' if index > 2 else 'train') if parts else root
        folder.mkdir(exist_ok=True)
        (root / 'images' / f'{index}.png').rename(folder / f'{index}.png')
        (root / 'annotations' / f'{index}.png').rename(folder / f'{index}_mask.png')
        (folder / '_classes.csv').write_text('Pixel Value, Class\n1, green\n0, background\n2, blue\n3, void\n')
    for name in ('images', 'annotations'):
        (root / name).rmdir()
    (root / 'classes.txt').unlink()
    return root


def test_maps_beside_the_images_are_told_apart_by_their_suffix(tmp_path: Path) -> None:
    data = read_segmentation_folder(beside(tmp_path))
    assert data.classes == ('background', 'green', 'blue') and data.values == (0, 1, 2, 255)
    assert data.suffixes == ('.png', '_mask.png')
    assert {part: one.names for part, one in data.parts.items()} == {'train': ('0', '1', '2'), 'val': ('3', '4')}
    train = data.parts['train']
    assert train.images == train.maps == str(tmp_path / 'train')
    assert not train.whole  # the host would take the maps for images


def test_maps_beside_the_images_of_one_folder_are_split(tmp_path: Path) -> None:
    data = read_segmentation_folder(beside(tmp_path, parts=False), val_fraction=0.4)
    assert data.suffixes == ('.png', '_mask.png') and data.parts['val'].images == str(tmp_path)
    assert sorted(data.parts['train'].names + data.parts['val'].names) == list('01234')


@pytest.mark.parametrize('suffix', ['_mask.png', '-labels.png', '.seg.png', '_GT.png'])
def test_maps_in_a_folder_of_their_own_may_have_a_suffix(tmp_path: Path, suffix: str) -> None:
    own_data.segmentation(tmp_path, 'folders', 'grey')
    for path in (tmp_path / 'annotations').glob('*/*.png'):
        path.rename(path.with_name(path.stem + suffix))
    data = read_segmentation_folder(tmp_path)
    assert data.suffixes == ('.png', suffix) and data.parts['train'].whole
    assert data.parts['val'].names == ('3', '4')


def test_a_word_that_images_have_in_their_names_too_is_no_suffix(tmp_path: Path) -> None:
    own_data.segmentation(tmp_path, 'folders', 'grey')
    for path in tmp_path.glob('*/*/*.png'):
        path.rename(path.with_name(f'{path.stem}_gt.png'))
    data = read_segmentation_folder(tmp_path)
    assert data.suffixes == ('.png', '.png') and data.parts['val'].names == ('3_gt', '4_gt')


@pytest.mark.parametrize('text', ['title\n0, a\n2, b\n', 'title\n', 'title\n0, a\n0, b\n', 'title\na\nb\n'])
def test_a_numbered_table_must_number_every_value(tmp_path: Path, text: str) -> None:
    (tmp_path / '_classes.csv').write_text(text)
    with pytest.raises(ValueError, match=r'_classes\.csv must number its classes 0, 1, 2'):
        read_table(tmp_path)
