//! Amazon S3 and everything that speaks its protocol.
use super::{ClientSettings, ObjectStore, StoreSettings};
use crate::error::{Error, Kind, Result};
pub(super) enum S3Store {}
impl S3Store {
    pub fn open(_store: &StoreSettings, _client: &ClientSettings) -> Result<S3Store> {
        Err(Error::new(Kind::Unsupported, "provider s3 is not in this build"))
    }
}
impl ObjectStore for S3Store {
    fn describe(&self) -> String {
        match *self {}
    }
    fn list<'a>(&'a self, _: &'a str) -> super::BoxFuture<'a, Vec<super::ObjectInfo>> {
        match *self {}
    }
    fn head<'a>(&'a self, _: &'a str) -> super::BoxFuture<'a, super::ObjectInfo> {
        match *self {}
    }
    fn read<'a>(&'a self, _: &'a str, _: std::ops::Range<u64>, _: Option<&'a str>) -> super::BoxFuture<'a, Vec<u8>> {
        match *self {}
    }
    fn upload<'a>(&'a self, _: &'a str, _: super::Replace) -> super::BoxFuture<'a, Box<dyn super::Upload>> {
        match *self {}
    }
    fn delete<'a>(&'a self, _: &'a str) -> super::BoxFuture<'a, ()> {
        match *self {}
    }
}
