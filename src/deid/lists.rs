//! The lists that are this library's own: texts, tables and coding schemes outside Table E.1-1 that analysis needs and that may stay.
//!
//! Everything else with a VR that can carry text goes, so each entry is a decision. None of them has a row in the standard's table.

use super::rules::Action;

/// Designators of coding schemes that are published (PS3.16 Table 8-1), as far as images use them.
pub(crate) const PUBLIC_SCHEMES: &[&str] = &[
    "ACR",
    "ATC",
    "BI",
    "C4",
    "CPT4",
    "DCM",
    "FMA",
    "I10",
    "I10C",
    "I10P",
    "I9",
    "I9C",
    "ICDO3",
    "ISO3166_1",
    "ISO639_1",
    "ISO639_2",
    "ITIS_TSN",
    "LN",
    "MA",
    "MDC",
    "NCIt",
    "NEU",
    "PATHLEX",
    "RADELEMENT",
    "RADLEX",
    "RFC3066",
    "RFC5646",
    "RXNORM",
    "SCT",
    "SNM3",
    "SRT",
    "UBERON",
    "UCUM",
    "UMLS",
    "UNS",
];

/// Texts outside Table E.1-1 that equipment writes and analysis needs. Everything else with a text VR goes.
pub(crate) const TECHNICAL_TEXTS: &[(u16, u16)] = &[
    (0x0008, 0x0070), // Manufacturer
    (0x0008, 0x1090), // Manufacturer's Model Name
    (0x0018, 0x0024), // Sequence Name
    (0x0018, 0x0031), // Radiopharmaceutical
    (0x0018, 0x0085), // Imaged Nucleus
    (0x0018, 0x1016), // Secondary Capture Device Manufacturer
    (0x0018, 0x1018), // Secondary Capture Device Manufacturer's Model Name
    (0x0018, 0x1019), // Secondary Capture Device Software Versions
    (0x0018, 0x1020), // Software Versions
    (0x0018, 0x1023), // Digital Image Format Acquired
    (0x0018, 0x1040), // Contrast/Bolus Route
    (0x0018, 0x1061), // Trigger Source or Type
    (0x0018, 0x1064), // Cardiac Framing Type
    (0x0018, 0x1070), // Radiopharmaceutical Route
    (0x0018, 0x1160), // Filter Type
    (0x0018, 0x1161), // Type of Filters
    (0x0018, 0x1180), // Collimator/Grid Name
    (0x0018, 0x11B0), // Acquisition Mode
    (0x0018, 0x1210), // Convolution Kernel
    (0x0018, 0x1250), // Receive Coil Name
    (0x0018, 0x1251), // Transmit Coil Name
    (0x0018, 0x1260), // Plate Type
    (0x0018, 0x1261), // Phosphor Type
    (0x0018, 0x702A), // Detector Manufacturer Name
    (0x0018, 0x702B), // Detector Manufacturer's Model Name
    (0x0018, 0x9005), // Pulse Sequence Name
    (0x0018, 0x9041), // Receive Coil Manufacturer Name
    (0x0018, 0x9046), // Multi-Coil Configuration
    (0x0018, 0x9047), // Multi-Coil Element Name
    (0x0018, 0x9050), // Transmit Coil Manufacturer Name
    (0x0018, 0x9320), // Image Filter
    (0x0020, 0x1040), // Position Reference Indicator
    (0x0020, 0x9056), // Stack ID
    (0x0020, 0x9421), // Dimension Description Label
    (0x0028, 0x1054), // Rescale Type
    (0x0028, 0x1055), // Window Center & Width Explanation
    (0x0028, 0x3003), // LUT Explanation
    (0x0028, 0x3004), // Modality LUT Type
    (0x0040, 0x9210), // LUT Label
    (0x0054, 0x0018), // Energy Window Name
    (0x0054, 0x1101), // Attenuation Correction Method
    (0x0054, 0x1103), // Reconstruction Method
    (0x0054, 0x1104), // Detector Lines of Response Used
    (0x0054, 0x1105), // Scatter Correction Method
    (0x0062, 0x0009), // Segment Algorithm Name
    (0x0066, 0x0031), // Algorithm Version
    (0x0066, 0x0036), // Algorithm Name
];

/// Texts that people write and that are still worth having: their words are held against the vocabulary. Where no word may stay, the
/// Type that the attribute has in the macro it belongs to decides.
pub(crate) const VOCABULARY_TEXTS: &[((u16, u16), Action)] = &[
    ((0x0018, 0x9080), Action::Dummy),  // Metabolite Map Description, PS3.3 C.8.13.5.12: Type 1C
    ((0x0018, 0x9423), Action::Remove), // Acquisition Protocol Name, C.8.15.3.2: Type 3
    ((0x0062, 0x0005), Action::Dummy),  // Segment Label, C.8.20.4: Type 1
    ((0x0062, 0x0006), Action::Remove), // Segment Description, C.8.20.4: Type 3
    ((0x0070, 0x0081), Action::Empty),  // Content Description, Table 10-12: Type 2
];

/// Binary tables that turn stored values into colours and units.
pub(crate) const LOOKUP_TABLES: &[(u16, u16)] = &[
    (0x0028, 0x1201), // Red Palette Color Lookup Table Data
    (0x0028, 0x1202), // Green
    (0x0028, 0x1203), // Blue
    (0x0028, 0x1221), // Segmented Red Palette Color Lookup Table Data
    (0x0028, 0x1222), // Segmented Green
    (0x0028, 0x1223), // Segmented Blue
    (0x0028, 0x3006), // LUT Data
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deid::table::tables;
    use dicom_core::Tag;
    use dicom_core::dictionary::DataDictionary;
    use dicom_dictionary_std::StandardDataDictionary;

    #[test]
    fn no_listed_text_has_a_row_in_the_table() {
        let tables = tables().unwrap();
        let vocabulary = VOCABULARY_TEXTS.iter().map(|(tag, _)| tag);
        for (group, element) in TECHNICAL_TEXTS.iter().chain(vocabulary).chain(LOOKUP_TABLES) {
            let tag = Tag(*group, *element);
            assert!(tables.row(tag).is_none(), "{tag}");
            assert!(StandardDataDictionary.by_tag(tag).is_some(), "{tag}");
        }
    }
}
