"""Studies with invented identifiers and the answer key about them, for midi_b.py; and what making and scoring share: paths, values, digests, drawn letters."""
import datetime
import functools
import hashlib
import json
import re

import numpy as np
import pydicom
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence

IMAGE = "1.2.840.10008.5.1.4.1.1."
# A font of three columns and five rows, a row in an octal digit.
FONT = dict(zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/- ", """25755 65656 34443 65556 74647 74644 34553 55755 72227 11152 55655 44447 57755 65555 25552 65644
    25573 65655 34216 72222 55557 55552 55775 55255 55222 71247 75557 26227 71747 71717 55711 74717 74757 71122 75757 75717 11244 00700 00000""".split()))
STEP = re.compile(r'\((\w{4}),(?:(\w{4})|"([^"]*)",(\w\w))\)(?:\[(\d+)\])?')
steps_of = functools.lru_cache(maxsize=None)(STEP.findall)


# ---- What both halves need: paths, values, pixels ----


def find(ds, path):
    """The data set that holds the attribute, and its tag; None without it. A private attribute is found by its creator, whatever its block."""
    steps = steps_of(path)
    for number, (group, element, creator, offset, item) in enumerate(steps, 1):
        try:
            tag = ds.private_block(int(group, 16), creator).get_tag(int(offset, 16)) if creator else int(group + element, 16)
        except KeyError:
            return None
        holder = ds.file_meta if group == "0002" else ds
        if tag not in holder or number == len(steps):
            return (holder, tag) if tag in holder else None
        items = holder[tag].value
        if not isinstance(items, Sequence) or len(items) <= int(item or 0):
            return None
        ds = items[int(item or 0)]


def values(ds, path):
    """None without the attribute; else its values as texts, none for an empty one."""
    if (found := find(ds, path)) is None:
        return None
    value = found[0][found[1]].value
    if isinstance(value, Sequence):
        return [f"item {number}" for number in range(len(value))]
    if isinstance(value, bytes):
        value = value.decode("latin-1").strip("\0 ")
    if value is None or isinstance(value, str):
        value = (value or "").split("\\")
    return [str(one) for one in (value if isinstance(value, (list, pydicom.multival.MultiValue)) else [value]) if str(one).strip()]


def digest(array, rectangles=()):
    """Of the samples, whatever the encoding; those within the rectangles (top, left, bottom, right) do not count."""
    array = array.astype("<i4")
    for top, left, bottom, right in rectangles:
        array[top:bottom, left:right] = 0
    return hashlib.sha256(array.tobytes()).hexdigest()


def letters(text):
    """The text as a drawing of two pixels a dot: True where there is ink."""
    drawn = np.hstack([np.array([[int(bit) for bit in f"{int(row, 8):03b}0"] for row in FONT[letter]], bool) for letter in text])
    return np.kron(drawn, np.ones((2, 2), bool))


# ---- make ----

SPEC = re.compile(r'(?:\((\w{4}),"([^"]*)",(\w\w)\)([A-Z]{2})?|([A-Za-z]\w*))(?:\[(\d+)\])?')
MARK = re.compile(r"\{(\w+):([^}]*)\}|<([^>]*)>")
PACS = '(0029,"MOORVALE PACS 2.1",'
SHARED, FRAME = "SharedFunctionalGroupsSequence.", "PerFrameFunctionalGroupsSequence[{}]."


def uid(*names):
    return "1.2.826.0.1.3680043.8.498." + str(int(hashlib.sha256("/".join(map(str, names)).encode()).hexdigest()[:24], 16))


def tag_path(spec):
    """`RequestAttributesSequence.AccessionNumber` as the key writes it: `(0040,0275)[0].(0008,0050)`."""
    steps = []
    for group, creator, offset, _, keyword, item in SPEC.findall(spec):
        tag = "" if creator else f"{tag_for_keyword(keyword):08X}"
        steps.append((f'({group},"{creator}",{offset})' if creator else f"({tag[:4]},{tag[4:]})") + f"[{item or 0}]")
    return ".".join(steps).removesuffix("[0]")


def put(ds, spec, value):
    """Sets an attribute, making the sequences and private blocks on the way."""
    steps = SPEC.findall(spec)
    for number, (group, creator, offset, vr, keyword, item) in enumerate(steps, 1):
        tag = ds.private_block(int(group, 16), creator, create=True).get_tag(int(offset, 16)) if creator else tag_for_keyword(keyword)
        if number == len(steps):
            vr = vr or dictionary_VR(tag).split(" or ")[0]
            if isinstance(value, str) and vr in ("US", "SS", "UL", "AT", "FL", "FD"):
                value = [float(one) if vr[0] == "F" else int(one, 0) for one in value.split("\\")]
            ds.add_new(tag, vr, value[0] if isinstance(value, list) and len(value) == 1 else value)
            return
        if tag not in ds:
            ds.add_new(tag, "SQ", Sequence())
        while len(ds[tag].value) <= int(item or 0):
            ds[tag].value.append(Dataset())
        ds = ds[tag].value[int(item or 0)]


class Study:
    """The instances of one series, and the rows of the key about them."""

    def __init__(self, name, patient, datasets):
        self.name, self.patient, self.datasets, self.rows = name, patient, datasets, []

    def row(self, ds, path, predicate, value, category, **more):
        self.rows.append({"study": self.name, "sop_instance_uid": str(ds.SOPInstanceUID), "path": path, "predicate": predicate, "value": value,
                          "category": category, **more})

    def plant(self, table, kept="TCIA"):
        """Sets attributes and writes their rows. Entries `spec = text` are lines, or have semicolons between them. In a text `{A:words}` is an identifier
        of HIPAA letter A (or of PS3.15 alone: DICOM), `<words>` must survive; a text without these must survive as a whole, with category `kept`. # is the
        number of the instance. After a spec, ! asks that the attribute stays, !! that it stays with a value, ~ that the value itself may change."""
        for entry in filter(str.strip, re.split("[;\n]", table)):
            spec, marked = (part.strip() for part in entry.split("=", 1))
            spec, signs = spec.rstrip("!~"), spec[len(spec.rstrip("!~")) :]
            path = tag_path(spec)
            for number, ds in enumerate(self.datasets, 1):
                text = marked.replace("#", str(number))
                marks = MARK.findall(text) or ([("", "", text)] if text else [])
                put(ds, spec, MARK.sub(lambda mark: mark[2] or mark[3], text))
                for category, identifier, _ in marks:
                    if category:
                        self.row(ds, path, "text_removed", identifier, category)
                if (retained := " ".join(words for category, _, words in marks if not category)) and "~" not in signs:
                    self.row(ds, path, "text_retained", retained, "TCIA" if "<" in text else kept)
                if "!" in signs:
                    self.row(ds, path, "text_notnull" if "!!" in signs else "tag_retained", "", "DICOM")

    def codes(self, spec, *code):
        """A sequence with one code; codes of public schemes stay."""
        for keyword, value in zip(("CodeValue", "CodingSchemeDesignator", "CodeMeaning"), code):
            self.plant(f"{spec}.{keyword} = {value}")

    def dates(self, specs, date, time=""):
        """Dates that move. A date and time keeps its time, but the rows ask for the date only."""
        for spec, ds in ((spec, ds) for spec in specs.split() for ds in self.datasets):
            put(ds, spec, f"{date:%Y%m%d}{time}")
            self.row(ds, tag_path(spec), "date_shifted", f"{date:%Y%m%d}", "C")

    def uids(self, spec, value=None, sop="", may_go=False):
        """A UID that is replaced; sop: the class it refers to. may_go: it is in a sequence that the profile removes where its Type is 3 (X/Z, X/Z/U*), so its
        absence is right too."""
        for number, ds in enumerate(self.datasets):
            if value is not None:
                put(ds, spec, value(number) if callable(value) else value)
            if sop:
                put(ds, spec.replace("SOPInstance", "SOPClass"), sop)
            old = values(ds, tag_path(spec))[0]
            self.row(ds, tag_path(spec), "uid_changed", old, "R")
            self.row(ds, tag_path(spec), "uid_consistent", old, "DICOM", **({"may_go": True} if may_go else {}))

    def keep(self, specs, category="TCIA"):
        """The values that headers have already must stay; attributes without a value make no row."""
        for spec, ds in ((spec, ds) for spec in specs for ds in self.datasets):
            if there := values(ds, tag_path(spec)):
                self.row(ds, tag_path(spec), "text_retained", "\\".join(there), category)

    def finish(self):
        """What holds for every image: identity, references to itself, pixels."""
        for spec in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            self.uids(spec)
        self.keep("SOPClassUID Modality InstanceNumber SeriesNumber ImageType Rows Columns BitsAllocated PhotometricInterpretation ImagePositionPatient "
                  "SliceLocation NumberOfFrames".split())
        for ds in self.datasets:
            ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
            self.row(ds, "(0010,0020)", "patid_consistent", self.patient["id"], "DICOM")
            self.row(ds, "(0010,0020)", "text_removed", self.patient["id"], "H")
            self.row(ds, "(0002,0003)", "uid_consistent", str(ds.SOPInstanceUID), "DICOM")
            for spec in "Modality SeriesNumber InstanceNumber SamplesPerPixel Rows Columns BitsStored HighBit PixelRepresentation PixelData".split():
                self.row(ds, tag_path(spec), "tag_retained", "", "DICOM")
            if not any("rectangle" in row for row in self.rows):
                self.row(ds, "(7FE0,0010)", "pixels_retained", digest(ds.pixel_array), "TCIA")
        return self


def instances(name, patient, visit, sop_class, modality, arrays):
    """A series of axial slices, 3 mm apart; visit is the study's name."""
    datasets = []
    for number, array in enumerate(arrays, 1):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = IMAGE + sop_class
        ds.SpecificCharacterSet, ds.Modality, ds.PatientID, ds.ImageType = "ISO_IR 100", modality, patient["id"], ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID = uid(visit), uid(visit, name), uid(visit, name, number)
        ds.SeriesNumber, ds.InstanceNumber = int(uid(name)[-2:]) + 1, number
        colour, frames = array.ndim == 3 and array.shape[2] == 3, array.ndim == 3 and array.shape[2] != 3
        ds.SamplesPerPixel, ds.PhotometricInterpretation = (3, "RGB") if colour else (1, "MONOCHROME2")
        if colour:
            ds.PlanarConfiguration = 0
        if frames:
            ds.NumberOfFrames = array.shape[0]
        ds.Rows, ds.Columns = array.shape[1:3] if frames else array.shape[:2]
        bits = array.dtype.itemsize * 8
        stored = 12 if bits == 16 and modality != "PT" else bits
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation, ds.PixelData = bits, stored, stored - 1, 0, array.tobytes()
        if sop_class in ("4", "2", "128"):
            ds.ImagePositionPatient, ds.SliceLocation = [-96, -96, 3.0 * number], 3.0 * number
        datasets.append(ds)
    return Study(name, patient, datasets)


def pictures(count, seed, shape=(64, 64)):
    """Blobs in noise, 12 bits, another one for each slice."""
    random, (rows, columns) = np.random.default_rng(seed), np.mgrid[: shape[0], : shape[1]]
    for number in range(count):
        blob = 2200 * np.exp(-((rows - 30 - number) ** 2 + (columns - 28) ** 2) / 250)
        yield (blob + random.integers(0, 400, shape)).astype("<u2")


def person(family, given, sex, age, size, weight, seed):
    random = np.random.default_rng(seed)

    def digits(count):
        return "".join(str(digit) for digit in random.integers(1, 10, count))

    one = {"family": family, "given": given, "sex": sex, "age": age, "size": size, "weight": weight, "id": f"{given[0]}{family[0]}-{digits(7)}"}
    one |= {"mrn": one["id"][3:], "phone": f"555-01{digits(2)}-{digits(3)}", "fax": f"555-01{digits(2)}-{digits(3)}", 
            "ssn": f"9{digits(2)}-{digits(2)}-{digits(4)}",
            "mail": f"{family.lower()}{digits(3)}@moorvalemail.invalid", "web": f"https://fernquist.invalid/{digits(6)}",
            "ip": f"203.0.113.{random.integers(100, 250)}",
            "street": f"{digits(3)} Fernhollow Lane", "zip": "ZX9" + digits(4),
            "birth": f"19{random.integers(30, 70)}0{random.integers(1, 9)}1{random.integers(0, 9)}"}
    pairs = "accession:AC study:ST plan:HP account:BK licence:DL car:VX device:SN finger:FP photo:PH step:SPS request:RQ admission:AD other:OX".split()
    return one | {name: prefix + digits(7) for name, prefix in (pair.split(":") for pair in pairs)}


def common(study, day, words, plane="AX"):
    """The identifiers that every study has, in standard attributes, nested ones, private ones and free text. words: what the study is about."""
    p, request, equipment, original = study.patient, "RequestAttributesSequence.", "ContributingEquipmentSequence.", "OriginalAttributesSequence."
    full, name = f"{p['given']} {p['family']}", f"{p['family']}^{p['given']}"
    study.plant(f"""
        PatientName! = {{A:{name}}}; PatientBirthDate! = {{C:{p['birth']}}}; ReferringPhysicianName! = {{A:Oakenshaw^Peregrina}}
        AccessionNumber! = {{R:{p['accession']}}}; StudyID! = {{R:{p['study']}}}; OtherPatientNames = {{A:{p['family']}-Applewhistle^{p['given']}}}
        PatientBirthName = {{A:Mumblethorpe^{p['given']}}}; PatientMotherBirthName = {{A:Dunnoffsky^Wilhelmia}}
        ResponsiblePerson = {{A:Brackenwold^Lysandrus}}; ResponsiblePersonRole~ = PARENT
        PerformingPhysicianName = {{A:Tarnwhistle^Eudora}}; NameOfPhysiciansReadingStudy = {{A:Hollowmere^Thaddeus}}
        PhysiciansOfRecord = {{A:Sedgewyck^Marigolda}}
        RequestingPhysician = {{A:Wintergreave^Alaric}}; OperatorsName = {{A:Pennyfarthing^Jocasta}}; OrderEnteredBy = {{A:Cobblestane^Ottoline}}
        OtherPatientIDsSequence.PatientID = {{H:{p['other']}}}; OtherPatientIDsSequence.TypeOfPatientID~ = TEXT
        OtherPatientIDsSequence.IssuerOfPatientID = {{B:Fernquist Registry}}
        IssuerOfPatientID = {{B:Fernquist Moorvale}}; MedicalRecordLocator = {{H:{p['mrn']}}}; AdmissionID = {{R:{p['admission']}}}
        PatientAddress = {{B:{p['street']}, Moorvale {p['zip']}}}; RegionOfResidence = {{B:Eastmarrow Vale}}; PatientTelephoneNumbers = {{D:{p['phone']}}}
        PatientTelecomInformation = {{F:{p['mail']}}}; InsurancePlanIdentification = {{I:{p['plan']}}}; MilitaryRank = {{DICOM:Brevet Quartermaster}}
        Occupation = {{DICOM:Lampwright}}; PatientReligiousPreference = {{DICOM:Pastafarianist}}; CurrentPatientLocation = {{B:Larkspur Wing}}
        InstitutionName = {{B:Fernquist Moorvale Hospital}}; InstitutionAddress = {{B:9 Bellhanger Row, Moorvale}}; PerformedLocation = {{B:Bellhanger}}
        InstitutionalDepartmentName = {{B:Larkspur Radiologica}}; StationName = {{M:MOORVALE07}}; DeviceSerialNumber = {{M:{p['device']}}}
        StationAETitle = {{M:FERNQ_AE7}}; PerformedStationAETitle = {{M:FERNQ_AE8}}; PerformedStationName = {{M:FERNQSTN}}
        PerformedProcedureStepID = {{R:{p['step']}}}
        OrderCallbackPhoneNumber = {{D:{p['phone']}}}; ReferringPhysicianTelephoneNumbers = {{D:{p['fax']}}}; ReferringPhysicianAddress = {{B:44 Bellhanger Row}}
        ReferringPhysicianIdentificationSequence.InstitutionName = {{B:Fernquist Moorvale}}
        ReferringPhysicianIdentificationSequence.PersonTelephoneNumbers = {{D:{p['fax']}}}
        StudyDescription = <{words} WITHOUT CONTRAST> {{A:{full}}}
        SeriesDescription = <{words} {plane} 3MM> for {{A:{p['family']}}} {{H:{p['mrn']}}}
        ProtocolName = <ROUTINE {words.split()[-1]}> {{B:Moorvale}}
        ImageComments = <slice> # of {{A:{full}}}, see {{N:{p['web']}}}
        AdditionalPatientHistory = <headache> since {{C:03/14/2018}}, daughter {{A:Ysolde {p['family']}}} at {{D:{p['phone']}}}
        PatientComments = SSN {{G:{p['ssn']}}} bank {{J:{p['account']}}} licence {{K:{p['licence']}}} car {{L:{p['car']}}} fax {{E:{p['fax']}}}
        StudyComments = fingerprint {{P:{p['finger']}}} photo {{Q:{p['photo']}}} host {{O:{p['ip']}}} mail {{F:{p['mail']}}} plan {{I:{p['plan']}}}
        RequestedProcedureDescription = <{words}> {{A:{p['given']}}}; PerformedProcedureStepDescription = <{words}> acc {{R:{p['accession']}}}
        CommentsOnThePerformedProcedureStep = <repeat> asked by {{A:Eudora Tarnwhistle}}
        ReasonForTheRequestedProcedure = <tumor follow> up of {{A:{p['family']}}}
        {request}RequestedProcedureID = {{R:{p['request']}}}; {request}ScheduledProcedureStepID = {{R:{p['step']}}}
        {request}AccessionNumber = {{R:{p['accession']}}}
        {request}ScheduledProcedureStepDescription = <{words}> {{A:{full}}} {{C:{day - datetime.timedelta(40):%m/%d/%Y}}}
        {request}RequestedProcedureDescription = <{words}> of {{B:Moorvale}}; {request}{PACS}10)LO = {{A:{full}}}
        {PACS}01)LO = {{A:{full}}}; {PACS}02)DA = {{C:{p['birth']}}}; {PACS}03)SH = {{R:{p['accession']}}}; {PACS}04).PatientName = {{A:{name}}}
        {PACS}04).{PACS}05)LT = {{B:{p['street']}}} {{D:{p['phone']}}}
        {original}ModifiedAttributesSequence.PatientID = {{H:{p['other']}}}; {original}ModifiedAttributesSequence.PatientName = {{A:Mumblethorpe^{p['given']}}}
        {original}AttributeModificationDateTime~ = {day:%Y%m%d}; {original}ModifyingSystem = {{M:FERNQPACS}}
        {original}ReasonForTheAttributeModification~ = CORRECT
        {original}SourceOfPreviousValues~ =; PositionReferenceIndicator~ =
        {equipment}InstitutionName = {{B:Fernquist Moorvale}}; {equipment}DeviceSerialNumber = {{M:{p['device']}}}; {equipment}Manufacturer! = SIEMENS
        {equipment}ContributionDescription = <reconstruction> by {{A:Jocasta Pennyfarthing}}
        Manufacturer! = SIEMENS; ManufacturerModelName = Avanto; SoftwareVersions = syngo VB17; LossyImageCompression~ = 00
        StudyTime~!! = 093015; SeriesTime~!! = 093015; AcquisitionTime~!! = 093015; ContentTime~!! = 093015; PerformedProcedureStepStartTime~!! = 093015
        """)
    # Retain Patient Characteristics keeps ages. Those above 89 are among the 18 identifiers, so they stay in a broader form.
    study.plant(f"PatientSex! = {p['sex']}; PatientSize = {p['size']}; PatientWeight = {p['weight']}; EthnicGroup = OTHER; SmokingStatus = NO", "DICOM")
    study.plant(f"PatientAge!! = {{C:{p['age']}}}" if p["age"] > "089Y" else f"PatientAge = {p['age']}", "DICOM")
    study.codes("ProcedureCodeSequence", "P5-0900", "SRT", "Imaging procedure")
    study.codes(equipment + "PurposeOfReferenceCodeSequence", "109102", "DCM", "Processing Equipment")
    study.dates("StudyDate SeriesDate AcquisitionDate ContentDate InstanceCreationDate PerformedProcedureStepStartDate", day)
    study.dates("AdmittingDate IssueDateOfImagingServiceRequest DateOfLastCalibration", day - datetime.timedelta(30))
    study.dates(equipment + "ContributionDateTime", day, "101500")
    study.uids("FrameOfReferenceUID", uid(p["id"], day, "frame"))
    study.uids("InstanceCreatorUID", uid("creator"))
    study.uids("IrradiationEventUID", lambda number: uid(p["id"], day, "event", number))
    study.uids("ReferencedStudySequence.ReferencedSOPInstanceUID", uid(p["id"], "ordered"), "1.2.840.10008.3.1.2.3.1", may_go=True)


PLANE = """ImageOrientationPatient = 1\\0\\0\\0\\1\\0; PixelSpacing = 3\\3; SliceThickness = 3; PatientPosition = HFS; PositionReferenceIndicator! =
    AcquisitionNumber = 2; WindowCenter = 1200; WindowWidth = 2400;"""


def magnetic(name, patient, visit, day, words, echo, before=None):
    p, study = patient, instances(name, patient, visit, "4", "MR", pictures(4, day.toordinal()))
    common(study, day, words)
    study.plant(PLANE + f"""SpacingBetweenSlices = 3; ScanningSequence! = SE; SequenceVariant! = SK; ScanOptions! =; MRAcquisitionType! = 2D; EchoTime = {echo}
        RepetitionTime = 2250.5; EchoTrainLength! = 7; MagneticFieldStrength = 3; FlipAngle = 150; NumberOfAverages = 2; ImagingFrequency = 123.249
        EchoNumbers = 1
        ImagedNucleus = 1H; PixelBandwidth = 235; SequenceName = *tse2d1_7; ReceiveCoilName = HEAD; BodyPartExamined = HEAD
        AcquisitionMatrix = 0\\64\\64\\0; SAR = 0.125
        Allergies = <PENICILLIN> told by {{A:{p['given']}}}; MedicalAlerts = <PACEMAKER> card {{M:PMX{p['mrn']}}}
        ContrastBolusAgent = <GADOLINIUM> lot of {{B:Fernquist}}
        AdmittingDiagnosesDescription = <GLIOMA> see letter to {{A:Wintergreave}} {{D:{p['fax']}}}; AcquisitionComments = <motion> said {{A:Pennyfarthing}}
        DerivationDescription = <average> by {{A:Tarnwhistle}} {{R:{p['study']}}}; RequestedProcedureComments = {{A:Brackenwold}} {{D:{p['phone']}}}""")
    block = '(0019,"SIEMENS MR HEADER",'
    study.plant(f"""{block}0C)IS = 1000; {block}0D)CS = DIRECTIONAL; {block}0E)FD = 0.6\\0\\0.8; (0043,"GEMS_PARM_01",6F)DS = 3\\4\\0""", "DICOM")
    # The same block has elements that the table of safe private attributes does not list.
    study.plant(f"{block}A0)LO = {{A:{p['family']}}} {{M:{p['device']}}}")
    study.uids('(0099,"NQHeader",02)UI', uid(name, "analysed"))
    if before:
        other, inside = before.datasets, "StudiesContainingOtherReferencedInstancesSequence."
        study.uids("ReferencedImageSequence.ReferencedSOPInstanceUID", lambda number: str(other[number].SOPInstanceUID), IMAGE + "4", may_go=True)
        study.uids(inside + "StudyInstanceUID", str(other[0].StudyInstanceUID))
        study.uids(inside + "ReferencedSeriesSequence.SeriesInstanceUID", str(other[0].SeriesInstanceUID))
        inside += "ReferencedSeriesSequence.ReferencedInstanceSequence.ReferencedSOPInstanceUID"
        study.uids(inside, lambda number: str(other[number].SOPInstanceUID), IMAGE + "4")
    return study.finish()


def tomography(name, patient, visit, day):
    p, study = patient, instances(name, patient, visit, "2", "CT", pictures(5, 3))
    common(study, day, "CT CHEST")
    study.plant(PLANE + f"""KVP! = 120; RescaleIntercept! = -1024; RescaleSlope! = 1; RescaleType = HU; ConvolutionKernel = B30f; ExposureTime = 500
            XRayTubeCurrent = 210
        Exposure = 105; GantryDetectorTilt = 0; TableHeight = 151.5; ReconstructionDiameter = 192; DataCollectionDiameter = 500; FilterType = WEDGE
        FocalSpots = 1.2
        RotationDirection = CW; BodyPartExamined = CHEST; SpiralPitchFactor = 0.9; GantryID = {{M:GX{p['mrn']}}}; RequestingService = {{B:Larkspur}} <oncology>
        (0019,"GEMS_ACQU_01",F0)LO = {{A:{p['family']}^{p['given']}}}; (0009,"GEMS_IDEN_01",E3)LO = {{R:{p['admission']}}}
        ReasonForStudy = <nodule> found on {{C:2017-11-05}} at {{B:Eastmarrow}}; AcquisitionContextSequence.TextValue = {{A:{p['given']} {p['family']}}} fasting
        ContrastBolusAgent = <IOHEXOL> ordered by {{A:Sedgewyck}}; VisitComments = {{A:Brackenwold}} fetched at {{D:{p['fax']}}}""")
    study.plant('(0019,"GEMS_ACQU_01",23)DS = 39.37; (0019,"GEMS_ACQU_01",27)DS = 0.5; (0043,"GEMS_PARM_01",27)SH = 0.984:1', "DICOM")
    return study.finish()


def emission(name, patient, visit, day, other):
    p, study, inside = patient, instances(name, patient, visit, "128", "PT", pictures(4, 4)), "RadiopharmaceuticalInformationSequence."
    common(study, day, "PET CHEST")
    study.plant(PLANE + f"""Units! = BQML; CountsSource! = EMISSION; SeriesType! = WHOLE BODY\\IMAGE; NumberOfSlices! = 4; DecayCorrection! = START
            ImageIndex! = #
        CorrectedImage! = DECY\\ATTN; CollimatorType! = NONE; FrameReferenceTime = 1000; ActualFrameDuration = 120000; DecayFactor = 1.02; RescaleIntercept! = 0
        RescaleSlope! = 2.5; ReconstructionMethod = OSEM; AttenuationCorrectionMethod = CT; BodyPartExamined = CHEST; {inside}RadionuclideTotalDose = 370000000
        {inside}RadionuclideHalfLife = 6586.2; {inside}RadiopharmaceuticalStartTime~!! = 083000
        ClinicalTrialSponsorName!! = {{DICOM:Glimmerwick Biologica}}; ClinicalTrialProtocolID!! = {{DICOM:GWB-{p['mrn']}}}
        ClinicalTrialSubjectID!! = {{R:SUB{p['mrn']}}}
        ClinicalTrialProtocolName! = {{DICOM:Glimmerwick Vespertine}}; ClinicalTrialSiteID! = {{DICOM:GW{p['mrn']}}}
        ClinicalTrialSiteName! = {{B:Fernquist Moorvale}}
        ClinicalTrialTimePointID! = {{R:TPV{p['mrn']}}}""")
    study.plant('(7053,"Philips PET Private Group",00)DS = 0.000551; (7053,"Philips PET Private Group",09)DS = 1.25', "DICOM")
    study.codes(inside + "RadionuclideCodeSequence", "C-111A1", "SRT", "18 Fluorine")
    study.dates(inside + "RadiopharmaceuticalStartDateTime", day, "083000")
    # PET names the CT of the same visit among its references.
    study.uids("ReferencedSeriesSequence.SeriesInstanceUID", str(other.datasets[0].SeriesInstanceUID))
    spec = "ReferencedSeriesSequence.ReferencedInstanceSequence.ReferencedSOPInstanceUID"
    study.uids(spec, lambda number: str(other.datasets[number].SOPInstanceUID), IMAGE + "2")
    return study.finish()


def enhanced(name, patient, visit, day):
    p, study = patient, instances(name, patient, visit, "4.1", "MR", [np.stack(list(pictures(8, 5)))])
    common(study, day, "MR T1 BRAIN", "SAG")
    timing = SHARED + "MRTimingAndRelatedParametersSequence."
    # Two entries differ from the plain images: the serial number is Type 1 (a dummy, not nothing), the acquisition context Type 2 (without items at the least).
    study.plant(f"""
        ImageType~ = ORIGINAL\\PRIMARY\\BRAIN\\NONE; DeviceSerialNumber!! = {{M:{p['device']}}}; AcquisitionContextSequence.TextValue = {{A:{p['given']}}}
        PixelPresentation = MONOCHROME; VolumetricProperties! = VOLUME; AcquisitionContrast = T1; VolumeBasedCalculationTechnique = NONE
        AcquisitionDuration = 62.5
        ComplexImageComponent = MAGNITUDE; ContentQualification = RESEARCH; PulseSequenceName = fl3d; MagneticFieldStrength = 3; ResonantNucleus = 1H
        KSpaceFiltering = NONE
        ApplicableSafetyStandardAgency = IEC; AcquisitionNumber! = 3; BurnedInAnnotation~ = NO; PresentationLUTShape = IDENTITY; PatientPosition = HFS
        PositionReferenceIndicator! =; MRAcquisitionType = 3D; EchoPulseSequence = GRADIENT; MultiPlanarExcitation = NO; SteadyStatePulseSequence = NONE
        {SHARED}PixelMeasuresSequence.PixelSpacing = 3\\3; {SHARED}PixelMeasuresSequence.SliceThickness = 3; {SHARED}MREchoSequence.EffectiveEchoTime = 4.6
        {SHARED}PlaneOrientationSequence.ImageOrientationPatient = 1\\0\\0\\0\\1\\0; {timing}RepetitionTime = 8.25; {timing}FlipAngle = 12
        {timing}EchoTrainLength = 1
        {SHARED}PixelValueTransformationSequence.RescaleIntercept = 0; {SHARED}PixelValueTransformationSequence.RescaleSlope = 1
        {SHARED}PixelValueTransformationSequence.RescaleType = US; {SHARED}MRImageFrameTypeSequence.FrameType = ORIGINAL\\PRIMARY\\BRAIN\\NONE
        {SHARED}FrameAnatomySequence.FrameLaterality = U; DimensionIndexSequence.DimensionIndexPointer~ = 0x00209057
        DimensionIndexSequence.FunctionalGroupPointer~ = 0x00209111""")
    study.row(study.datasets[0], tag_path("AcquisitionContextSequence"), "tag_retained", "", "DICOM")
    study.dates("AcquisitionDateTime", day, "093015.25")
    evidence = "ReferencedImageEvidenceSequence."
    for spec, what in (("DimensionOrganizationSequence.DimensionOrganizationUID", "dimensions"), ("DimensionIndexSequence.DimensionOrganizationUID", "dimensions"),
                       (evidence + "StudyInstanceUID", "survey study"), (evidence + "ReferencedSeriesSequence.SeriesInstanceUID", "survey series")):
        study.uids(spec, uid(name, what))
    study.uids(evidence + "ReferencedSeriesSequence.ReferencedSOPSequence.ReferencedSOPInstanceUID", uid(name, "survey"), IMAGE + "4")
    for number in range(8):
        frame, content = FRAME.format(number), FRAME.format(number) + "FrameContentSequence."
        study.dates(f"{content}FrameAcquisitionDateTime {content}FrameReferenceDateTime", day, f"0930{20 + number}")
        study.plant(f"""{content}FrameComments = <motion> {{A:{p['family']}}} {{H:{p['mrn']}}} spoke to {{A:Jocasta}} {{C:{day:%d.%m.%Y}}}; {content}StackID = 1
            {frame}PlanePositionSequence.ImagePositionPatient = -96\\-96\\{3.0 * number}; {content}DimensionIndexValues = {number + 1}
            {content}InStackPositionNumber = {number + 1}
            {content}FrameAcquisitionNumber = 1; {content}FrameAcquisitionDuration = 62.5""")
        study.uids(frame + "ReferencedImageSequence.ReferencedSOPInstanceUID", uid(name, "survey"), IMAGE + "4", may_go=True)
    return study.finish()


def projection(name, patient, visit, day, sop_class, modality):
    """One radiograph. Its position is more than the IOD asks for; a loader of volumes needs it."""
    p, study = patient, instances(name, patient, visit, sop_class, modality, pictures(1, len(name)))
    common(study, day, "XR CHEST", "PA")
    study.plant(f"""
        ImageOrientationPatient = 1\\0\\0\\0\\0\\-1; ImagePositionPatient~ = -160\\0\\160; PixelSpacing = 5\\5; ImagerPixelSpacing = 5.5\\5.5; KVP = 90
        BodyPartExamined! = CHEST; ViewPosition! = PA; Exposure = 4; ExposureTime = 12; DistanceSourceToDetector = 1800; PixelIntensityRelationship = LOG
        RelativeXRayExposure = 340; Sensitivity = 400; PatientOrientation! = L\\F; PresentationLUTShape = IDENTITY; BurnedInAnnotation~ = NO; WindowCenter = 1500
        WindowWidth = 3000; ImageType~ = ORIGINAL\\PRIMARY; RescaleIntercept = 0; RescaleSlope = 1; RescaleType = US; DetectorID = {{M:DT{p['mrn']}}}
        PlateID = {{M:PL{p['mrn']}}}; CassetteID = {{M:CA{p['mrn']}}}; AcquisitionDeviceProcessingDescription = <CHEST PA> {{A:{p['family']}}}
        PatientState = <standing> with {{A:Lysandrus}}; SpecialNeeds = <wheelchair> from {{B:Larkspur}}""")
    study.dates("DateOfLastDetectorCalibration", day - datetime.timedelta(9))
    if modality == "DX":
        study.plant(f"""PresentationIntentType! = FOR PRESENTATION; PixelIntensityRelationshipSign = -1; DetectorType = DIRECT; PositionerType = NONE
                ImageLaterality = U
            AcquisitionContextSequence.PersonName = {{A:{p['family']}^{p['given']}}}""")
        study.row(study.datasets[0], tag_path("AcquisitionContextSequence"), "tag_retained", "", "DICOM")
        study.codes("AnatomicRegionSequence", "T-D3000", "SRT", "Chest")
        study.codes("ViewCodeSequence", "R-10214", "SRT", "postero-anterior")
    return study.finish()


def segmentation(name, patient, visit, day, source):
    """A probability map of a lesion on the slices of another series of the visit."""
    p, images = patient, source.datasets
    study = instances(name, patient, visit, "66.4", "SEG", [(np.stack(list(pictures(len(images), 6))) >> 4).astype(np.uint8)])
    common(study, day, "SEGMENTATION BRAIN")
    measures = SHARED + "PixelMeasuresSequence."
    study.plant(f"""
        ImageType~ = DERIVED\\PRIMARY; SegmentationType! = FRACTIONAL; SegmentationFractionalType = PROBABILITY; MaximumFractionalValue = 255; ContentLabel! = LESION
        SegmentSequence.SegmentNumber! = 1; SegmentSequence.SegmentAlgorithmType = MANUAL; SegmentSequence.SegmentLabel! = Lesion; PositionReferenceIndicator~ =
        {measures}PixelSpacing = 3\\3; {measures}SliceThickness = 3; {measures}SpacingBetweenSlices = 3; SegmentSequence.TrackingID~ = LESION 1
        {SHARED}PlaneOrientationSequence.ImageOrientationPatient = 1\\0\\0\\0\\1\\0; DeviceSerialNumber!! = {{M:{p['device']}}}
        ContentCreatorName = {{A:Tarnwhistle^Eudora}}""")
    study.codes("SegmentSequence.SegmentedPropertyCategoryCodeSequence", "49755003", "SCT", "Morphologically Abnormal Structure")
    study.codes("SegmentSequence.SegmentedPropertyTypeCodeSequence", "52988006", "SCT", "Lesion")
    study.uids("SegmentSequence.TrackingUID", uid(name, "lesion"))
    study.uids("DimensionOrganizationSequence.DimensionOrganizationUID", uid(name, "dimensions"))
    study.uids("ReferencedSeriesSequence.SeriesInstanceUID", str(images[0].SeriesInstanceUID))
    for number, image in enumerate(images):
        frame = FRAME.format(number)
        study.plant(f"""{frame}PlanePositionSequence.ImagePositionPatient = -96\\-96\\{3.0 * number + 3}
                {frame}FrameContentSequence.DimensionIndexValues = {number + 1}
            {frame}SegmentIdentificationSequence.ReferencedSegmentNumber = 1""")
        study.codes(frame + "DerivationImageSequence.DerivationCodeSequence", "113076", "DCM", "Segmentation")
        study.uids(f"ReferencedSeriesSequence.ReferencedInstanceSequence[{number}].ReferencedSOPInstanceUID", str(image.SOPInstanceUID), IMAGE + "4")
        study.uids(frame + "DerivationImageSequence.SourceImageSequence.ReferencedSOPInstanceUID", str(image.SOPInstanceUID), IMAGE + "4", may_go=True)
    return study.finish()


def burned(name, patient, visit, day, sop_class, modality, lines):
    """An image with text in its pixels; the key has the rectangle of each line, and a digest of what lies outside. It has a position for loaders of volumes."""
    image = np.stack([(picture >> 5).astype(np.uint8) for picture in pictures(3, 8, (96, 192))], axis=2)
    rectangles = []
    for top, line in zip(range(4, 96, 16), lines):
        ink = letters(line)
        image[top : top + ink.shape[0], 4 : 4 + ink.shape[1]][ink] = 255
        rectangles.append([top - 2, 2, top + ink.shape[0] + 2, 6 + ink.shape[1]])
    study = instances(name, patient, visit, sop_class, modality, [image])
    common(study, day, "US LIVER" if modality == "US" else "CT CHEST")
    study.plant(f"BurnedInAnnotation~ = YES; ConversionType~ = WSD; PatientOrientation~ =; PixelSpacing = 1\\1; "
                f"ImageOrientationPatient = 1\\0\\0\\0\\1\\0; ImagePositionPatient = 0\\0\\0; ImageType~ = {'DERIVED' if modality == 'OT' else 'ORIGINAL'}\\"
                f"{'SECONDARY' if modality == 'OT' else 'PRIMARY'}")
    study.dates("DateOfSecondaryCapture", day)
    for line, rectangle in zip(lines, rectangles):
        study.row(study.datasets[0], "(7FE0,0010)", "pixels_hidden", line, "A", rectangle=rectangle)
    study.row(study.datasets[0], "(7FE0,0010)", "pixels_retained", digest(image, rectangles), "TCIA", rectangles=rectangles)
    return study.finish()


def real(name, files, patient, day):
    """Headers of a real scan, private elements included, with identifiers where it had none; its slices made smaller."""
    datasets = [pydicom.dcmread(file) for file in files]
    for number, ds in enumerate(datasets, 1):
        small = ds.pixel_array[::4, ::4]
        ds.Rows, ds.Columns, ds.PixelSpacing, ds.PixelData = *small.shape, [4 * float(value) for value in ds.PixelSpacing], small.astype("<u2").tobytes()
        ds.PatientID, ds.InstanceNumber = patient["id"], number
    study = Study(name, patient, datasets)
    common(study, day, "T1 BRAIN", "SAG")
    study.keep([f'(2001,"Philips Imaging DD 001",{offset})' for offset in "03 06 0B 10 13 14 18 22 23 2D 83 85".split()]
               + [f'(2005,"Philips MR Imaging DD 001",{offset})' for offset in ("0D", "0E")], "DICOM")
    study.keep("ImageOrientationPatient PixelSpacing SliceThickness PatientPosition ScanningSequence SequenceVariant ScanOptions MRAcquisitionType EchoTime "
               "RepetitionTime EchoTrainLength FlipAngle MagneticFieldStrength ImagedNucleus PixelBandwidth NumberOfAverages PercentSampling AcquisitionMatrix "
               "ReceiveCoilName DiffusionBValue RescaleSlope SAR WindowCenter".split())
    study.uids("ReferencedImageSequence.ReferencedSOPInstanceUID", may_go=True)
    return study.finish()


def make(folder, data):
    """Writes every study and the key. The same call gives the same bytes."""
    date, quill = datetime.date, person("Quillfeather", "Zebediah", "M", "063Y", 1.8, 81.5, 1)
    bramble = person("Brambleworth", "Hesperia", "F", "093Y", 1.6, 52, 2)
    thistle, wren = person("Thistlewick", "Ambrosius", "M", "047Y", 1.75, 77, 3), person("Wrenhollow", "Persimmonia", "F", "029Y", 1.65, 60, 4)
    snap, petct, second = person("Snapdrake", "Ignatiana", "F", "055Y", 1.7, 66, 5), date(2020, 10, 6), date(2021, 2, 9)
    studies = [magnetic("quillfeather-mr-2019", quill, "quill-1", date(2019, 5, 21), "MR T1 BRAIN", 9.8)]
    studies.append(magnetic("quillfeather-mr-2021", quill, "quill-2", second, "MR T2 FLAIR BRAIN", 92, studies[0]))
    studies.append(segmentation("quillfeather-seg-2021", quill, "quill-2", second, studies[1]))
    studies.append(tomography("brambleworth-ct", bramble, "bramble-1", petct))
    studies.append(emission("brambleworth-pet", bramble, "bramble-1", petct, studies[3]))
    studies.append(enhanced("thistlewick-enhanced-mr", thistle, "thistle-1", date(2018, 8, 17)))
    studies.append(projection("wrenhollow-dx", wren, "wren-1", date(2022, 3, 4), "1.1", "DX"))
    studies.append(projection("wrenhollow-cr", wren, "wren-2", date(2022, 6, 15), "1", "CR"))
    studies.append(burned("brambleworth-sc", bramble, "bramble-1", petct, "7", "OT", ["BRAMBLEWORTH", bramble["id"], "1930-04-12"]))
    studies.append(burned("snapdrake-us", snap, "snap-1", date(2021, 12, 1), "6.1", "US", ["SNAPDRAKE IGNATIANA", snap["accession"]]))
    files = sorted((data / "mr_t1_philips_mprage").glob("*.dcm"))[80:85] if data else []
    if files:
        studies.append(real("ottergrove-real-mr", files, person("Ottergrove", "Lucastella", "M", "041Y", 1.8, 90, 6), date(2021, 9, 2)))
    for study in studies:
        (folder / study.name).mkdir(parents=True, exist_ok=True)
        for number, ds in enumerate(study.datasets, 1):
            ds.save_as(folder / study.name / f"{number:03}.dcm", enforce_file_format=True)
    key = {"studies": {study.name: {"patient_id": study.patient["id"]} for study in studies}, "rows": [row for study in studies for row in study.rows]}
    (folder / "key.json").write_text(json.dumps(key, indent=0))
    return studies, key
