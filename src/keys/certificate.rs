//! An identity as X.509, for a hospital that has OpenSSL and nothing else.
//!
//! `openssl cms -encrypt -recip FILE` wants a certificate, not a public key. Two are written, in this order:
//! 1. the agree key's, key usage `keyAgreement`, issued by the identity's own signing key: what `-recip` reads;
//! 2. the signing key's, self-signed, key usage `digitalSignature, keyCertSign`: what `openssl verify -CAfile` takes.
//!
//! Two certificates, because two keys have two uses. No authority stands behind them and none is needed: whoever seals compares the
//! fingerprint, as with a PEM of the keys. Everything but the signatures is a function of the entry:
//!
//! | field | value |
//! |---|---|
//! | subject | `CN=smp <key id> agree` and `CN=smp <key id> sign` |
//! | key identifier | SHA-256 of the key's SPKI DER (RFC 7093, section 2, method 4), which is also what a package header calls the key |
//! | validity | from when the identity was made to its expiry, or to 99991231235959Z, which means "never" (RFC 5280, 4.1.2.5) |
//! | serial number | 16 bytes of SHA-256 over SPKI DER and validity, so that another expiry makes another certificate |

use p384::ecdsa::VerifyingKey;
use p384::ecdsa::signature::Keypair;
use pkcs8::der::asn1::{BitString, OctetString};
use pkcs8::der::{DateTime, Decode, EncodePem, pem::LineEnding};
use pkcs8::spki::{self, AlgorithmIdentifierOwned, DynSignatureAlgorithmIdentifier, ObjectIdentifier, SubjectPublicKeyInfoRef};
use sha2::{Digest, Sha256};
use x509_cert::TbsCertificate;
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{self, Builder, CertificateBuilder};
use x509_cert::ext::pkix::{AuthorityKeyIdentifier, BasicConstraints, KeyUsage, KeyUsages, SubjectKeyIdentifier};
use x509_cert::ext::{Extension, ToExtension};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::SubjectPublicKeyInfo;
use x509_cert::time::{Time, Validity};

use super::backend::PrivateKeys;
use super::dates::Moment;
use super::fingerprint::PublicPair;
use crate::error::{Error, Kind, Result, Stage};

/// ecdsa-with-SHA384 (RFC 5758, 3.2).
const ECDSA_WITH_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");

/// RFC 5280, 4.1.2.5: no well-defined expiration date.
const NEVER: &str = "9999-12-31T23:59:59Z";

/// Both certificates of an identity in PEM, the agree key's first.
pub(super) fn write(keys: &PublicPair, private: &dyn PrivateKeys, created: &str, expires: Option<Moment>) -> Result<String> {
    let [agree, sign] = keys.shown() else { return Err(defect()) };
    let made = Moment::parse(created).ok_or_else(defect)?;
    let until = expires.or_else(|| Moment::parse(NEVER)).ok_or_else(defect)?;
    let name = |key: &str| format!("CN=smp {} {key}", keys.id()).parse::<Name>().map_err(|_| defect());
    let issuer = Issuer { key: keys.signing_key(), private };
    let (agree_name, sign_name) = (name("agree")?, name("sign")?);
    let agree = issuer.certify(agree, Profile { subject: agree_name, issuer: sign_name.clone(), is_issuer: false }, made, until)?;
    let sign = issuer.certify(sign, Profile { subject: sign_name.clone(), issuer: sign_name, is_issuer: true }, made, until)?;
    Ok(agree + &sign)
}

/// The signing key as the builder knows it; the signature itself is made where the private key is.
struct Issuer<'a> {
    key: VerifyingKey,
    private: &'a dyn PrivateKeys,
}

impl Keypair for Issuer<'_> {
    type VerifyingKey = VerifyingKey;

    fn verifying_key(&self) -> VerifyingKey {
        self.key
    }
}

impl DynSignatureAlgorithmIdentifier for Issuer<'_> {
    fn signature_algorithm_identifier(&self) -> spki::Result<AlgorithmIdentifierOwned> {
        Ok(AlgorithmIdentifierOwned { oid: ECDSA_WITH_SHA384, parameters: None })
    }
}

impl Issuer<'_> {
    fn certify(&self, spki: &[u8], profile: Profile, made: Moment, until: Moment) -> Result<String> {
        let validity = Validity::new(time_of(made)?, time_of(until)?);
        let mut serial: [u8; 32] =
            Sha256::new().chain_update(spki).chain_update(made.text()?).chain_update(until.text()?).finalize().into();
        // Positive and always 16 bytes long (RFC 5280, 4.1.2.2).
        serial[0] = serial[0] & 0x7f | 0x40;
        let serial = SerialNumber::new(&serial[..16]).map_err(|_| defect())?;
        let key = SubjectPublicKeyInfo::from_der(spki).map_err(|_| defect())?;
        let mut builder = CertificateBuilder::new(profile, serial, validity, key).map_err(|_| defect())?;
        let message = builder.finalize(self).map_err(|_| defect())?;
        let signature = BitString::from_bytes(&self.private.sign(&message)?).map_err(|_| defect())?;
        let certificate = builder.assemble(signature, self).map_err(|_| defect())?;
        certificate.to_pem(LineEnding::LF).map_err(|_| defect())
    }
}

/// Which of the two certificates.
struct Profile {
    subject: Name,
    issuer: Name,
    is_issuer: bool,
}

impl BuilderProfile for Profile {
    fn get_issuer(&self, _: &Name) -> Name {
        self.issuer.clone()
    }

    fn get_subject(&self) -> Name {
        self.subject.clone()
    }

    fn build_extensions(
        &self,
        key: SubjectPublicKeyInfoRef<'_>,
        issuer: SubjectPublicKeyInfoRef<'_>,
        tbs: &TbsCertificate,
    ) -> builder::Result<Vec<Extension>> {
        let usage = if self.is_issuer { KeyUsages::DigitalSignature | KeyUsages::KeyCertSign } else { KeyUsages::KeyAgreement.into() };
        // The signing key vouches for the agree key beside it and for no authority below it.
        let constraints = BasicConstraints { ca: self.is_issuer, path_len_constraint: self.is_issuer.then_some(0) };
        let authority = AuthorityKeyIdentifier { key_identifier: Some(identifier(issuer)?), ..Default::default() };
        let name = tbs.subject();
        Ok(vec![
            (true, &constraints).to_extension(name, &[])?,
            (true, &KeyUsage(usage)).to_extension(name, &[])?,
            (false, &SubjectKeyIdentifier(identifier(key)?)).to_extension(name, &[])?,
            (false, &authority).to_extension(name, &[])?,
        ])
    }
}

/// SHA-256 of the SPKI DER.
fn identifier(key: SubjectPublicKeyInfoRef<'_>) -> builder::Result<OctetString> {
    let der = pkcs8::der::Encode::to_der(&key)?;
    Ok(OctetString::new(Sha256::digest(&der).as_slice())?)
}

fn time_of(moment: Moment) -> Result<Time> {
    let at = moment.date_time();
    let year = u16::try_from(at.year()).map_err(|_| defect())?;
    let time = DateTime::new(year, at.month().into(), at.day(), at.hour(), at.minute(), at.second());
    // UTCTime up to 2049, GeneralizedTime from 2050 (RFC 5280, 4.1.2.5): the conversion keeps to it.
    time.map(Time::from).map_err(|_| Error::new(Kind::InvalidArgument, "a certificate cannot begin or end before 1970").at(Stage::Keys))
}

fn defect() -> Error {
    Error::new(Kind::Internal, "the certificate could not be written").at(Stage::Keys)
}
