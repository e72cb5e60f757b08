"""What the benches in Python share: a series of DICOM files in memory, and as much of the library, by ctypes, as they need."""

import ctypes
import io
import pathlib

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent


def runtime():
    """ONNX Runtime's shared library out of its wheel."""
    import onnxruntime

    return next((pathlib.Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))


def series(voxels):
    """The files of an axial MR series."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

    study, series, frame = (generate_uid(entropy_srcs=[name]) for name in ("study", "series", "frame"))
    for number, plane in enumerate(voxels):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = MRImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[f"slice {number}"])
        file = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
        file.SOPClassUID, file.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
        file.StudyInstanceUID, file.SeriesInstanceUID, file.FrameOfReferenceUID = study, series, frame
        file.Modality, file.PatientID, file.PatientName, file.ImageType = "MR", "1", "Bench^", ["ORIGINAL", "PRIMARY"]
        # Type 2: there, and empty.
        file.PatientBirthDate = file.PatientSex = file.StudyDate = file.StudyTime = file.AccessionNumber = file.StudyID = ""
        file.ReferringPhysicianName, file.PositionReferenceIndicator, file.Manufacturer, file.SeriesNumber = "", "", "", 1
        file.InstanceNumber, file.ImagePositionPatient = number + 1, [0, 0, number]
        file.ImageOrientationPatient, file.PixelSpacing, file.SliceThickness = [1, 0, 0, 0, 1, 0], [1, 1], 1
        file.Rows, file.Columns = plane.shape
        file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
        file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 0
        file.PixelData = plane.tobytes()
        written = io.BytesIO()
        file.save_as(written, enforce_file_format=True)
        yield written.getvalue()


class Smp:
    """As much of the library as is needed here."""

    def __init__(self, folder, settings):
        self.library = ctypes.CDLL(str(ROOT / "build/lib/libsmp.so"))
        for name, result in (
            ("config_new", ctypes.c_void_p), ("pipeline_new", ctypes.c_void_p), ("request_new", ctypes.c_void_p),
            ("pipeline_process_study", ctypes.c_void_p), ("last_error_message", ctypes.c_char_p), ("result_stage_seconds", ctypes.c_double),
            ("result_dicom_size", ctypes.c_int64),
        ):
            getattr(self.library, f"smp_{name}").restype = result
        config = ctypes.c_void_p(self.library.smp_config_new())
        own = {
            "cloud.provider": "local", "cloud.bucket": folder, "workspace": f"{folder}/workspace", "audit_log_path": f"{folder}/audit",
            "key_store_path": f"{folder}/keys", "encryption_key_path": f"{folder}/keys/master.key", "device": "cpu",
        }
        for key, value in (own | settings).items():
            self.check(self.library.smp_config_set(config, key.encode(), str(value).encode()) == 0)
        self.pipeline = ctypes.c_void_p(self.library.smp_pipeline_new(config))
        self.check(self.pipeline)
        self.kept = []

    def check(self, holds):
        if not holds:
            raise RuntimeError(self.library.smp_last_error_message().decode())

    def segment_by(self, mask, names):
        """Answers this mask for every study."""

        def work(_, case):
            case = ctypes.c_void_p(case)
            status = self.library.smp_case_set_mask(case, mask.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(mask.size))
            for value, name in names.items():
                status = status or self.library.smp_case_name_label(case, ctypes.c_int64(value), name.encode())
            return status

        self.kept.append(ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p)(work))
        self.check(self.library.smp_pipeline_set_segmenter(self.pipeline, b"bench", b"1", None, self.kept[-1], None) == 0)

    def process(self, files):
        """A result, to be freed."""
        request = ctypes.c_void_p(self.library.smp_request_new(None))
        for file in files:
            self.check(self.library.smp_request_add_instance(request, file, ctypes.c_int64(len(file))) == 0)
        self.check(self.library.smp_request_set(request, b"operations", b"load,segment") == 0)
        result = ctypes.c_void_p(self.library.smp_pipeline_process_study(self.pipeline, request))
        self.library.smp_request_free(request)
        self.check(result)
        return result

    def segment(self, files):
        """Seconds of the stage, and voxels of label 1."""
        result = self.process(files)
        seconds = self.library.smp_result_stage_seconds(result, b"segment")
        count = [ctypes.c_int64() for _ in range(3)]
        self.check(self.library.smp_result_dims(result, *map(ctypes.byref, count)) == 0)
        mask = np.empty([n.value for n in reversed(count)], np.uint8)
        self.check(self.library.smp_result_copy_mask(result, mask.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(mask.size)) == 0)
        self.library.smp_result_free(result)
        return seconds, int((mask == 1).sum())

    def save(self, result, path, what):
        self.check(self.library.smp_result_save(result, str(path).encode(), what.encode()) == 0)

    def object(self, result):
        """The segmentation object, as bytes in memory."""
        size = self.library.smp_result_dicom_size(result, ctypes.c_int64(0))
        self.check(size > 0)
        made = ctypes.create_string_buffer(size)
        self.check(self.library.smp_result_dicom_copy(result, ctypes.c_int64(0), made, ctypes.c_int64(size)) == 0)
        return made.raw
