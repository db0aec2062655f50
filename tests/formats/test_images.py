"""Every kind of image, whole and damaged."""

import h5py
import numpy as np
import pytest
from fabio.cbfimage import CbfImage
from fabio.edfimage import EdfImage
from fabio.tifimage import TifImage

from refine.errors import InputError
from refine.formats.images import read_image, write_cbf

COUNTS = np.arange(48 * 40, dtype=np.int32).reshape(48, 40) % 900


def smv(path, counts=COUNTS, kind="unsigned_short", extra="", size=None):
    slow, fast = counts.shape
    text = (
        "{\nHEADER_BYTES=512;\nDIM=2;\nBYTE_ORDER=little_endian;\n"
        f"TYPE={kind};\nSIZE1={fast};\nSIZE2={slow};\nPIXEL_SIZE=0.1;\nDISTANCE=100;\nWAVELENGTH=1.2;\n{extra}}}\f"
    )
    raw = text.ljust(512).encode() + counts.astype("<u2").tobytes()
    path.write_bytes(raw[:size])
    return path


def cbf(path):
    header = {"_array_data.header_contents": "# Pixel_size 172e-6 m x 172e-6 m\r\n# Detector_distance 0.2 m\r\n"}
    CbfImage(data=COUNTS, header=header).write(str(path))
    return path


def edf(path, counts=COUNTS):
    EdfImage(data=counts.astype(np.float32)).write(str(path))
    return path


def tif(path):
    TifImage(data=COUNTS.astype(np.uint16)).write(str(path))
    return path


def hdf5(path):
    with h5py.File(path, "w") as file:
        frames = np.stack([COUNTS, COUNTS + 1]).astype(np.uint32)
        frames[0, 0, 0] = 2**32 - 1
        file["entry/data/data"] = frames
        file["entry/instrument/detector/x_pixel_size"] = 75e-6
        file["entry/instrument/detector/detector_distance"] = 0.15
        file["entry/instrument/detector/beam_center_x"] = 20.0
        file["entry/instrument/detector/beam_center_y"] = 24.0
        file["entry/instrument/beam/incident_wavelength"] = 0.98
        mask = np.zeros(COUNTS.shape, np.uint32)
        mask[3, 4] = 1
        file["entry/instrument/detector/detectorSpecific/pixel_mask"] = mask
    return path


def npy(path):
    np.save(path, COUNTS)
    return path


KINDS = {"a.img": smv, "a.cbf": cbf, "a.edf": edf, "a.tif": tif, "a.npy": npy}


@pytest.mark.parametrize("name", KINDS)
def test_pixels_come_back(tmp_path, name):
    np.testing.assert_array_equal(read_image(KINDS[name](tmp_path / name)).counts, COUNTS)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("keep", [0, 0.02, 0.4, 0.9])
def test_a_truncated_file_is_one_line(tmp_path, name, keep):
    path = KINDS[name](tmp_path / name)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * keep)])
    with pytest.raises(InputError) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [*KINDS, "a.h5"])
def test_junk_is_one_line(tmp_path, name):
    (tmp_path / name).write_bytes(b"this is no image at all\n" * 100)
    with pytest.raises(InputError):
        read_image(tmp_path / name)


def test_a_flipped_byte_in_a_cbf_is_found(tmp_path):
    path = cbf(tmp_path / "a.cbf")
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"\x0c\x1a\x04\xd5") + 300] ^= 0xFF
    path.write_bytes(raw)
    with pytest.raises(InputError, match="Content-MD5"):
        read_image(path)


def test_values_that_are_not_finite_are_refused(tmp_path):
    counts = COUNTS.astype(np.float32)
    counts[1, 2] = np.nan
    with pytest.raises(InputError, match="finite"):
        read_image(edf(tmp_path / "a.edf", counts))


def test_an_smv_of_another_type_is_refused(tmp_path):
    with pytest.raises(InputError, match="signed_long"):
        read_image(smv(tmp_path / "a.img", kind="signed_long"))


def test_smv_header_in_our_units(tmp_path):
    extra = "MOSFLM_CENTER_X=2.5;\nMOSFLM_CENTER_Y=2.1;\nXDS_ORGX=22.5;\nXDS_ORGY=26;\nOSC_RANGE=0.5;\n"
    image = read_image(smv(tmp_path / "a.img", extra=extra))
    assert image.largest == 65535
    assert image.header["wavelength_A"] == 1.2
    assert image.header["osc_deg"] == 0.5
    assert image.header["beam_fast_slow_mm"] == pytest.approx([2.15, 2.55])
    assert image.header["foot_fast_slow_mm"] == pytest.approx([2.2, 2.55])


def test_a_header_that_is_no_number_is_one_line(tmp_path):
    path = smv(tmp_path / "a.img")
    path.write_bytes(path.read_bytes().replace(b"DISTANCE=100", b"DISTANCE=abc"))
    with pytest.raises(InputError, match="DISTANCE"):
        read_image(path)


def test_eiger_frames_geometry_and_mask(tmp_path):
    path = hdf5(tmp_path / "a.h5")
    image = read_image(path, frame=1)
    np.testing.assert_array_equal(image.counts, COUNTS + 1)
    assert not image.valid[3, 4]
    assert image.valid.sum() == image.valid.size - 1
    assert image.header["pixel_size_mm"] == pytest.approx(0.075)
    assert image.header["beam_fast_slow_mm"] == pytest.approx([1.5, 1.8])
    assert read_image(path).counts[0, 0] == read_image(path).largest
    with pytest.raises(InputError, match=r"data\.frame"):
        read_image(path, frame=2)


def test_negative_pixels_of_integer_files_are_gaps(tmp_path):
    counts = COUNTS.copy()
    counts[5, 5] = -1
    CbfImage(data=counts).write(str(tmp_path / "a.cbf"))
    assert np.argwhere(~read_image(tmp_path / "a.cbf").valid).tolist() == [[5, 5]]


def test_calculated_image_survives_a_round_trip(tmp_path):
    write_cbf(tmp_path / "c.cbf", COUNTS + 0.3, {"Detector_distance": "0.1 m", "Wavelength": "1.5 A"})
    image = read_image(tmp_path / "c.cbf")
    np.testing.assert_array_equal(image.counts, COUNTS)
    assert image.header == {"distance_mm": 100.0, "wavelength_A": 1.5}
    assert [p.name for p in tmp_path.iterdir()] == ["c.cbf"]
