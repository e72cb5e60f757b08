//! What became what: the one list that leads back to a patient, kept only when it is asked for.
//!
//! It comes as tables of two columns, `id_old,id_new`, the form that the MIDI-B benchmark reads: patient ids, UIDs, and the days by which dates were moved. Nothing here
//! writes it to a disk; whoever asked for it seals it for the researcher (`deid.mapping`).

use std::collections::BTreeMap;

use zeroize::Zeroize;

use crate::secret::Plain;

/// Old and new identifiers of a study. No `Debug`; overwritten when dropped.
#[derive(Default)]
pub struct Mapping {
    patients: BTreeMap<String, String>,
    uids: BTreeMap<String, String>,
    /// Days into the past by Patient ID, where dates were moved.
    days: BTreeMap<String, i64>,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        for (mut old, _) in std::mem::take(&mut self.patients).into_iter().chain(std::mem::take(&mut self.uids)) {
            old.zeroize();
        }
        for (mut old, _) in std::mem::take(&mut self.days) {
            old.zeroize();
        }
    }
}

impl Mapping {
    pub(super) fn patient(&mut self, old: &str, new: &str) {
        self.patients.insert(old.trim().to_owned(), new.to_owned());
    }

    pub(super) fn uid(&mut self, old: &str, new: &str) {
        self.uids.insert(old.trim_matches([' ', '\0']).to_owned(), new.to_owned());
    }

    pub(super) fn days(&mut self, patient: &str, days: i64) {
        self.days.insert(patient.trim().to_owned(), days);
    }

    /// Takes over what another worker found.
    pub(super) fn merge(&mut self, mut other: Mapping) {
        self.patients.append(&mut other.patients);
        self.uids.append(&mut other.uids);
        self.days.append(&mut other.days);
    }

    /// The tables as files, by name: `patient_id_mapping.csv`, `uid_mapping.csv`, and with moved dates `date_shift_mapping.csv`, whose second column is the days by
    /// which dates lie earlier than they did. Quoted as RFC 4180 has it.
    pub fn files(&self) -> Vec<(&'static str, Plain)> {
        let days: BTreeMap<String, String> = self.days.iter().map(|(patient, days)| (patient.clone(), days.to_string())).collect();
        let mut files = vec![("patient_id_mapping.csv", table(&self.patients, "id_new")), ("uid_mapping.csv", table(&self.uids, "id_new"))];
        if !days.is_empty() {
            files.push(("date_shift_mapping.csv", table(&days, "days_earlier")));
        }
        files
    }
}

fn table(rows: &BTreeMap<String, String>, second: &str) -> Plain {
    // Quotes double, at most; nothing is left behind by a vector that grows.
    let size: usize = rows.iter().map(|(old, new)| 2 * (old.len() + new.len()) + 8).sum();
    let mut out = Plain::new(Vec::with_capacity(size + 32));
    out.extend_from_slice(format!("id_old,{second}\r\n").as_bytes());
    for (old, new) in rows {
        for (text, end) in [(old, ","), (new, "\r\n")] {
            let is_plain = !text.contains(['"', ',', '\r', '\n']);
            if is_plain {
                out.extend_from_slice(text.as_bytes());
            } else {
                out.push(b'"');
                for byte in text.bytes() {
                    if byte == b'"' {
                        out.push(b'"');
                    }
                    out.push(byte);
                }
                out.push(b'"');
            }
            out.extend_from_slice(end.as_bytes());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_quoted_where_they_must_be() {
        let mut mapping = Mapping::default();
        mapping.patient("B,1 ", "NEWB");
        mapping.patient("say \"A\"", "NEWA");
        mapping.uid("1.2.3\0", "2.25.4");
        let mut more = Mapping::default();
        more.uid("1.2.9", "2.25.5");
        mapping.merge(more);
        let text = |mapping: &Mapping, index: usize| String::from_utf8(mapping.files()[index].1.to_vec()).unwrap();
        assert_eq!(text(&mapping, 0), "id_old,id_new\r\n\"B,1\",NEWB\r\n\"say \"\"A\"\"\",NEWA\r\n");
        assert_eq!(text(&mapping, 1), "id_old,id_new\r\n1.2.3,2.25.4\r\n1.2.9,2.25.5\r\n");
        assert_eq!(mapping.files().len(), 2);
        mapping.days("B,1", 700);
        assert_eq!(text(&mapping, 2), "id_old,days_earlier\r\n\"B,1\",700\r\n");
    }
}
