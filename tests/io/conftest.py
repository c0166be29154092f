"""Files that no writer at hand makes."""

import numpy as np
import pytest
import tifffile

_SCHEMA = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
_ROOT = f'<OME xmlns="{_SCHEMA}" UUID="urn:uuid:{{}}"><Image ID="Image:0">{{}}</Image></OME>'
_PIXELS = (
    '<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="{}" SizeY="{}" SizeZ="1" SizeC="3" SizeT="1">'
)
_PLANE = '<TiffData FirstC="{0}" IFD="0" PlaneCount="1"><UUID FileName="p{0}.ome.tif">urn:uuid:{0}</UUID></TiffData>'


@pytest.fixture
def ome_set(tmp_path):
    """A folder with an image of three channels in three files, as Bio-Formats writes them."""
    image = np.random.default_rng(0).integers(0, 60000, (5, 130, 170), dtype=np.uint16)[:3]
    (tmp_path / "set").mkdir()
    channels = "".join(f'<Channel ID="Channel:0:{i}" Name="{name}"/>' for i, name in enumerate("abc"))
    pixels = _PIXELS.format(170, 130) + channels + "".join(_PLANE.format(i) for i in range(3)) + "</Pixels>"
    for i, plane in enumerate(image):
        tifffile.imwrite(tmp_path / f"set/p{i}.ome.tif", plane, description=_ROOT.format(i, pixels), metadata=None)
    return tmp_path / "set"
