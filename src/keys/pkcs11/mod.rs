//! Private keys in a PKCS #11 token: made there, used there, never read from there.
//!
//! Agreement is CKM_ECDH1_DERIVE with no key derivation, whose result is a session object that is read and destroyed at once: the shared secret of
//! one package, not the key. Signing is CKM_ECDSA over a SHA-384 digest made here. What a token answers is checked like anything else that
//! comes from outside: every signature verifies under the identity's public key before it is used, and keys are accepted only after they
//! proved to agree and to sign and the token said that it will not give them out.
//!
//! Source: PKCS #11 Cryptographic Token Interface Version 2.40, sections 2.3.6 (ECDSA) and 2.3.8 (ECDH).

mod connection;

use std::sync::Arc;

use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::elliptic_curve::{EcKdf, Ecdh1DeriveParams};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use p384::PublicKey;
use pkcs8::der::Decode;
use pkcs8::der::asn1::OctetStringRef;
use sha2::{Digest, Sha384};
use zeroize::Zeroizing;

use super::backend::{COORDINATE, PrivateKeys, uncompressed_point};
use super::fingerprint::PublicPair;
use super::identity::PrivatePair;
use super::token::{Found, Place, TokenKey};
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;
use connection::{Fault, Token};

/// DER of the named curve secp384r1 (RFC 5480, 2.1.1.1), as CKA_EC_PARAMS holds it.
const SECP384R1: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];

/// Bytes of a CKA_ID that is made here.
const ID: usize = 16;

/// What a pair is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Agree,
    Sign,
}

/// The private keys of an identity, seen from outside of the token.
struct TokenKeys {
    token: Arc<Token>,
    keys: PublicPair,
    agree: Vec<u8>,
    sign: Vec<u8>,
}

/// Makes two pairs on a token and proves that they work and stay.
pub(super) fn generate(place: &Place<'_>) -> Result<Found> {
    let token = Token::at(place)?;
    let mut ids = [0u8; 2 * ID];
    super::rest::fill_random(&mut ids)?;
    let (agree, sign) = ids.split_at(ID);
    let made = token.with_writing(|session| {
        let agree_point = generate_pair(session, agree, Use::Agree)?;
        let pair = generate_pair(session, sign, Use::Sign).and_then(|sign_point| Ok(PublicPair::new(agree_point, sign_point)?));
        pair.inspect_err(|_| destroy(session, agree))
    })?;
    let found = Found { keys: made, serial: token.serial()?, agree: agree.to_vec(), sign: sign.to_vec() };
    accept(&token, found).inspect_err(|_| {
        // Keys that nobody will use are not left on somebody's token.
        let _ = token.with_writing(|session| {
            destroy(session, agree);
            destroy(session, sign);
            Ok(())
        });
    })
}

/// Finds two pairs on a token and proves that they work and stay.
pub(super) fn find(place: &Place<'_>, agree: &TokenKey, sign: &TokenKey) -> Result<Found> {
    let token = Token::at(place)?;
    let ((agree, agree_point), (sign, sign_point)) = token.with(|session| Ok((pair_of(session, agree)?, pair_of(session, sign)?)))?;
    if agree_point == sign_point {
        return Err(Error::new(Kind::KeyInvalid, "one key pair cannot both agree and sign"));
    }
    let keys = PublicPair::new(agree_point, sign_point)?;
    let found = Found { keys, serial: token.serial()?, agree, sign };
    accept(&token, found)
}

/// The private keys of a known identity. The token is asked when they are first used, not before.
pub(super) fn open(place: &Place<'_>, found: Found) -> Result<Arc<dyn PrivateKeys>> {
    let Found { keys, agree, sign, .. } = found;
    Ok(Arc::new(TokenKeys { token: Token::at(place)?, keys, agree, sign }))
}

impl PrivateKeys for TokenKeys {
    fn agree(&self, point: &[u8]) -> Result<Secret<[u8; COORDINATE]>> {
        // Not left to the token: some do not look whether the point is on the curve.
        uncompressed_point(point)?;
        self.token.with(|session| {
            let key = private_key(session, &self.agree)?;
            let mechanism = Mechanism::Ecdh1Derive(Ecdh1DeriveParams::new(EcKdf::null(), point));
            let template = [
                Attribute::Class(ObjectClass::SECRET_KEY),
                Attribute::KeyType(KeyType::GENERIC_SECRET),
                Attribute::Token(false),
                Attribute::Sensitive(false),
                Attribute::Extractable(true),
                Attribute::ValueLen(COORDINATE.try_into()?),
            ];
            let derived = session.derive_key(&mechanism, key, &template)?;
            let value = session.get_attributes(derived, &[AttributeType::Value]);
            session.destroy_object(derived)?;
            let value = value?
                .into_iter()
                .find_map(|attribute| if let Attribute::Value(value) = attribute { Some(Zeroizing::new(value)) } else { None });
            let value = value.filter(|value| value.len() == COORDINATE).ok_or_else(|| unusable("it gives out no shared secret"))?;
            let mut shared = Secret::new([0u8; COORDINATE]);
            shared.expose_mut().copy_from_slice(&value);
            Ok(shared)
        })
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        let digest = Sha384::digest(message);
        let raw = self.token.with(|session| Ok(session.sign(&Mechanism::Ecdsa, private_key(session, &self.sign)?, &digest)?))?;
        // r and s, 48 bytes each, both from 1 to n - 1; then the one DER encoding.
        let signature = p384::ecdsa::Signature::from_slice(&raw).map_err(|_| unusable("its signature is malformed"))?;
        let signature = signature.to_der().as_bytes().to_vec();
        // A faulty or exchanged token must not sign in anybody's name, nor leak its key by a wrong signature.
        if !self.keys.verifies(message, &signature) {
            return Err(unusable("its signature does not verify under the identity's public key"));
        }
        Ok(signature)
    }
}

/// Lets keys in: only such as the token keeps to itself, and that do what an identity's keys do.
fn accept(token: &Arc<Token>, found: Found) -> Result<Found> {
    token.with(|session| {
        for id in [&found.agree, &found.sign] {
            let wanted = [AttributeType::Sensitive, AttributeType::Extractable];
            let said = session.get_attributes(private_key(session, id)?, &wanted)?;
            if !said.contains(&Attribute::Sensitive(true)) || !said.contains(&Attribute::Extractable(false)) {
                return Err(unusable("it would let the private key out").into());
            }
        }
        Ok(())
    })?;
    let private = TokenKeys { token: Arc::clone(token), keys: found.keys.clone(), agree: found.agree.clone(), sign: found.sign.clone() };
    private.sign(b"smp-keystore/v1 proof of possession\n")?;
    let other = PrivatePair::generate()?;
    let (here, there) = (other.agree(&found.keys.agree_point())?, private.agree(&other.public()?.agree_point())?);
    if here.expose() != there.expose() {
        return Err(unusable("it agrees on another secret than its public key says"));
    }
    Ok(found)
}

fn generate_pair(session: &Session, id: &[u8], purpose: Use) -> Result<PublicKey, Fault> {
    let label = if purpose == Use::Agree { "smp agree" } else { "smp sign" }.as_bytes().to_vec();
    let mut public = vec![
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::KeyType(KeyType::EC),
        Attribute::EcParams(SECP384R1.to_vec()),
        Attribute::Id(id.to_vec()),
        Attribute::Label(label.clone()),
    ];
    let mut private = vec![
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Id(id.to_vec()),
        Attribute::Label(label),
    ];
    // One use each: a token then refuses the other.
    if purpose == Use::Agree {
        private.extend([Attribute::Derive(true), Attribute::Sign(false)]);
    } else {
        public.push(Attribute::Verify(true));
        private.extend([Attribute::Sign(true), Attribute::Derive(false)]);
    }
    let (public, _) = session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)?;
    point_of(session, public)
}

/// Id and public point of a pair that is on the token.
fn pair_of(session: &Session, key: &TokenKey) -> Result<(Vec<u8>, PublicKey), Fault> {
    let named = match key {
        TokenKey::Label(label) => Attribute::Label(label.as_bytes().to_vec()),
        TokenKey::Id(id) => Attribute::Id(id.clone()),
    };
    let private = only(session.find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::KeyType(KeyType::EC), named])?)?;
    let said = session.get_attributes(private, &[AttributeType::Id])?;
    let id = said.into_iter().find_map(|attribute| if let Attribute::Id(id) = attribute { Some(id) } else { None });
    let id = id.filter(|id| !id.is_empty()).ok_or_else(|| unusable("its key has no id"))?;
    // Every later use names the key by its id, so it must be the only one.
    private_key(session, &id)?;
    let public =
        session.find_objects(&[Attribute::Class(ObjectClass::PUBLIC_KEY), Attribute::KeyType(KeyType::EC), Attribute::Id(id.clone())])?;
    let point = point_of(session, only(public)?)?;
    Ok((id, point))
}

/// The point of a public key object.
fn point_of(session: &Session, public: ObjectHandle) -> Result<PublicKey, Fault> {
    let said = session.get_attributes(public, &[AttributeType::EcParams, AttributeType::EcPoint])?;
    if !said.contains(&Attribute::EcParams(SECP384R1.to_vec())) {
        return Err(Error::new(Kind::KeyInvalid, "the token's key is not on the named curve P-384").into());
    }
    let der = said.iter().find_map(|attribute| if let Attribute::EcPoint(der) = attribute { Some(der) } else { None });
    let point = der.and_then(|der| <&OctetStringRef>::from_der(der).ok()).ok_or_else(|| unusable("its public key is malformed"))?;
    Ok(uncompressed_point(point.as_bytes())?)
}

fn private_key(session: &Session, id: &[u8]) -> Result<ObjectHandle, Fault> {
    only(session.find_objects(&[
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::KeyType(KeyType::EC),
        Attribute::Id(id.to_vec()),
    ])?)
}

fn only(found: Vec<ObjectHandle>) -> Result<ObjectHandle, Fault> {
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(Fault::KeyGone),
        more => Err(Error::new(Kind::KeyInvalid, format!("{} keys of the token have this name", more.len())).into()),
    }
}

/// Removes a pair by its id, best effort.
fn destroy(session: &Session, id: &[u8]) {
    for object in session.find_objects(&[Attribute::Id(id.to_vec())]).unwrap_or_default() {
        let _ = session.destroy_object(object);
    }
}

fn unusable(why: &'static str) -> Error {
    Error::new(Kind::KeyStoreUnavailable, format!("the token cannot be used: {why}")).with_hint("check the token and its PKCS #11 module")
}
