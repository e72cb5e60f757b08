//! A page of `List Blobs`, out of XML.
//!
//! The page is read event by event, so nothing is built that the page describes and nothing outside of the five elements of interest counts.
//! A document type is refused: a listing has none, and entities of somebody's own are no use to anybody honest.

use quick_xml::Reader;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::Event;

use super::{ObjectInfo, nonsense, unquoted};
use crate::error::Result;

/// Elements inside elements; a listing has five.
const DEPTH: usize = 32;

/// One page of a listing.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// Blobs, without the folders that an account with a hierarchical namespace lists among them.
    pub objects: Vec<ObjectInfo>,
    /// Where the next page begins; `None` for the last.
    pub next: Option<String>,
}

/// What is known of a blob so far.
#[derive(Default)]
struct Blob {
    name: String,
    is_encoded: bool,
    size: Option<u64>,
    e_tag: String,
    is_folder: bool,
}

/// Reads a page.
pub(super) fn parse(xml: &[u8]) -> Result<Page> {
    let garbled = || nonsense("a listing that is not the XML expected");
    let mut reader = Reader::from_reader(xml.strip_prefix(b"\xef\xbb\xbf").unwrap_or(xml));
    let (mut path, mut text, mut blob, mut page, mut is_whole) =
        (Vec::<Vec<u8>>::new(), String::new(), Blob::default(), Page::default(), false);
    loop {
        match reader.read_event().map_err(|_| garbled())? {
            Event::Start(element) => {
                text.clear();
                path.push(element.local_name().as_ref().to_vec());
                if path.len() > DEPTH {
                    return Err(garbled());
                }
                match place(&path).as_slice() {
                    [b"Blobs", b"Blob"] => blob = Blob::default(),
                    [b"Blobs", b"Blob", b"Name"] => {
                        let encoded = element.try_get_attribute("Encoded").map_err(|_| garbled())?;
                        blob.is_encoded = encoded.is_some_and(|attribute| attribute.value.as_ref() == b"true");
                    }
                    _ => {}
                }
            }
            Event::Text(part) => text.push_str(&part.decode().map_err(|_| garbled())?),
            Event::CData(part) => text.push_str(&part.decode().map_err(|_| garbled())?),
            Event::GeneralRef(reference) => match reference.resolve_char_ref().map_err(|_| garbled())? {
                Some(character) => text.push(character),
                None => text.push_str(resolve_xml_entity(&reference.decode().map_err(|_| garbled())?).ok_or_else(garbled)?),
            },
            Event::End(_) => {
                match place(&path).as_slice() {
                    [b"Blobs", b"Blob", b"Name"] => blob.name = std::mem::take(&mut text),
                    [b"Blobs", b"Blob", b"Properties", b"Content-Length"] => blob.size = text.trim().parse().ok(),
                    [b"Blobs", b"Blob", b"Properties", b"Etag"] => blob.e_tag = unquoted(text.trim()).to_owned(),
                    [b"Blobs", b"Blob", b"Properties", b"ResourceType"] => blob.is_folder = text.trim() == "directory",
                    [b"Blobs", b"Blob"] => page.objects.extend(std::mem::take(&mut blob).finished()?),
                    [b"NextMarker"] => page.next = Some(std::mem::take(&mut text)).filter(|marker| !marker.is_empty()),
                    [] if path.len() == 1 => is_whole = path.first().is_some_and(|root| root == b"EnumerationResults"),
                    _ => {}
                }
                path.pop();
                text.clear();
            }
            Event::DocType(_) => return Err(garbled()),
            Event::Eof => break,
            Event::Empty(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
        }
    }
    // A page cut short looks like one with fewer blobs.
    if is_whole && path.is_empty() { Ok(page) } else { Err(garbled()) }
}

/// The way from the outermost element, without that.
fn place(path: &[Vec<u8>]) -> Vec<&[u8]> {
    path.iter().skip(1).map(Vec::as_slice).collect()
}

impl Blob {
    fn finished(self) -> Result<Option<ObjectInfo>> {
        if self.is_folder {
            return Ok(None);
        }
        // Names that XML cannot hold are percent-encoded (since version 2021-02-12).
        let name = match self.is_encoded {
            true => percent_encoding::percent_decode_str(&self.name)
                .decode_utf8()
                .map_err(|_| nonsense("a name that is not UTF-8"))?
                .into_owned(),
            false => self.name,
        };
        let size = self.size.ok_or_else(|| nonsense("an object without a size"))?;
        if name.is_empty() || self.e_tag.is_empty() {
            return Err(nonsense("an object without a name or an ETag"));
        }
        Ok(Some(ObjectInfo { name, size, version: self.e_tag }))
    }
}

/// Sorted by name, each name once. A name that comes twice with the same version is an overlap of two pages; with two versions the
/// object was replaced while it was listed, and another listing will know.
pub(super) fn without_twins(mut objects: Vec<ObjectInfo>) -> Result<Vec<ObjectInfo>> {
    objects.sort_by(|a, b| a.name.cmp(&b.name));
    objects.dedup();
    if objects.windows(2).any(|pair| matches!(pair, [a, b] if a.name == b.name)) {
        return Err(nonsense("one object in two versions"));
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    /// After the sample answer of the REST reference for List Blobs.
    const PAGE: &str = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?>\
        <EnumerationResults ServiceEndpoint=\"https://myaccount.blob.core.windows.net/\" ContainerName=\"mycontainer\">\
        <MaxResults>4</MaxResults><Blobs>\
        <Blob><Name>blob1.txt</Name><Properties><Last-Modified>Wed, 09 Sep 2009 09:20:02 GMT</Last-Modified><Etag>0x8CBFF45D8A29A19</Etag>\
        <Content-Length>100</Content-Length><Content-Type>text/html</Content-Type></Properties><Metadata><Name>not the name</Name></Metadata></Blob>\
        <Blob><Name> a &amp; b &#228;&lt;</Name><Properties><Etag>\"0x1\"</Etag><Content-Length>0</Content-Length></Properties></Blob>\
        <Blob><Name Encoded=\"true\">a%EF%BF%BF%25</Name><Properties><Etag>0x2</Etag><Content-Length>7</Content-Length></Properties></Blob>\
        <Blob><Name>folder</Name><Properties><Etag>0x3</Etag><ResourceType>directory</ResourceType><Content-Length>0</Content-Length></Properties></Blob>\
        </Blobs><NextMarker>2!72!x--</NextMarker></EnumerationResults>";

    fn object(name: &str, size: u64, version: &str) -> ObjectInfo {
        ObjectInfo { name: name.into(), size, version: version.into() }
    }

    #[test]
    fn a_page_is_read() {
        let page = parse(PAGE.as_bytes()).unwrap();
        let expected = [object("blob1.txt", 100, "0x8CBFF45D8A29A19"), object(" a & b ä<", 0, "0x1"), object("a\u{ffff}%", 7, "0x2")];
        assert_eq!(page.objects, expected);
        assert_eq!(page.next.as_deref(), Some("2!72!x--"));
        let last = PAGE.replace("<NextMarker>2!72!x--</NextMarker>", "<NextMarker />");
        assert_eq!(parse(last.as_bytes()).unwrap().next, None);
    }

    #[test]
    fn what_is_no_whole_page_is_refused() {
        let nested = format!("<EnumerationResults>{}", "<a>".repeat(1_000_000));
        for wrong in [
            "",
            "no xml",
            "<html></html>",
            "<EnumerationResults><Blobs></Blobs>",
            "<EnumerationResults><Blobs><Blob><Name>x</Name></Blob></Blobs></EnumerationResults>",
            "<!DOCTYPE x [<!ENTITY e \"x\">]><EnumerationResults></EnumerationResults>",
            "<EnumerationResults>&e;</EnumerationResults>",
            &PAGE.replace("<Content-Length>100", "<Content-Length>-100"),
            &PAGE.replace("<Etag>0x8CBFF45D8A29A19", "<Etag>"),
            &nested,
        ] {
            assert_eq!(parse(wrong.as_bytes()).unwrap_err().kind(), Kind::ServerFailed, "{:.60}", wrong);
        }
        for end in 0..PAGE.len() - 1 {
            assert!(parse(&PAGE.as_bytes()[..end]).is_err(), "cut after {end}");
        }
    }

    #[test]
    fn a_name_is_listed_once() {
        let listed = without_twins(vec![object("b", 1, "1"), object("a", 1, "1"), object("b", 1, "1")]).unwrap();
        assert_eq!(listed, [object("a", 1, "1"), object("b", 1, "1")]);
        assert_eq!(without_twins(vec![object("b", 1, "1"), object("b", 1, "2")]).unwrap_err().kind(), Kind::ServerFailed);
    }
}
