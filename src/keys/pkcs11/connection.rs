//! The way to a token: its module loaded once per process, one login, one session at a time, and a second try when the token was replugged.
//!
//! A session serves one thread at a time, so it stands behind a mutex; a token does one thing at a time anyway. Login belongs to the
//! application and not to a session (PKCS #11, 5.6): a second login with any PIN is answered "already logged in". So that a wrong PIN is told all
//! the same, a token that is live in the process is shared, and a PIN is held against the one that opened it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as Answer, RvError};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use subtle::ConstantTimeEq;

use super::super::token::Place;
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

/// Modules that are loaded and initialized. Never unloaded: other threads, and the host itself, may be inside.
static MODULES: LazyLock<Mutex<HashMap<PathBuf, Pkcs11>>> = LazyLock::new(Mutex::default);

/// Tokens that are in use, by module and label.
static TOKENS: LazyLock<Mutex<Tokens>> = LazyLock::new(Mutex::default);

type Tokens = HashMap<(PathBuf, String), Weak<Token>>;

/// What can end a piece of work with a token.
pub(super) enum Fault {
    /// The token or its module answered with an error.
    Answer(Answer),
    /// The token answers and holds no such key; after it was replugged, a new login may show it.
    KeyGone,
    /// Anything else.
    Ours(Error),
}

impl From<Answer> for Fault {
    fn from(answer: Answer) -> Fault {
        Fault::Answer(answer)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault::Ours(error)
    }
}

impl From<std::num::TryFromIntError> for Fault {
    fn from(_: std::num::TryFromIntError) -> Fault {
        Fault::Ours(Error::new(Kind::Internal, "a length does not fit"))
    }
}

/// A token, logged in when it is first used.
pub(super) struct Token {
    module: PathBuf,
    label: String,
    serial: Option<String>,
    pin: Secret<String>,
    live: Mutex<Option<Live>>,
}

/// An open session, logged in.
struct Live {
    session: Session,
    slot: Slot,
    serial: String,
}

impl Token {
    /// The token at a place: the one that is in use in this process, or one that will be opened when it is needed.
    pub(super) fn at(place: &Place<'_>) -> Result<Arc<Token>> {
        let key = (place.module.to_owned(), place.label.to_owned());
        let mut tokens = guard(&TOKENS);
        tokens.retain(|_, token| token.strong_count() > 0);
        if let Some(token) = tokens.get(&key).and_then(Weak::upgrade) {
            let same_pin = bool::from(token.pin.expose().as_bytes().ct_eq(place.pin.expose().as_bytes()));
            let live = guard(&token.live);
            let same_token = match (&*live, place.serial) {
                (Some(live), Some(serial)) => live.serial == serial,
                (None, serial) => token.serial.as_deref() == serial,
                (Some(_), None) => true,
            };
            if same_token && same_pin {
                drop(live);
                return Ok(token);
            }
            if same_token && live.is_some() {
                return Err(wrong_pin("the token is in use with another PIN"));
            }
        }
        let token = Arc::new(Token {
            module: place.module.to_owned(),
            label: place.label.to_owned(),
            serial: place.serial.map(str::to_owned),
            pin: Secret::new(place.pin.expose().to_owned()),
            live: Mutex::default(),
        });
        tokens.insert(key, Arc::downgrade(&token));
        Ok(token)
    }

    /// Serial number of the token.
    pub(super) fn serial(&self) -> Result<String> {
        let mut live = guard(&self.live);
        Ok(self.connected(&mut live).map_err(told)?.serial.clone())
    }

    /// Does some work with a session, once more with a new one if the old one turns out to be dead.
    pub(super) fn with<T>(&self, work: impl Fn(&Session) -> Result<T, Fault>) -> Result<T> {
        self.attempt(&mut guard(&self.live), |live| work(&live.session))
    }

    /// Does some work that makes or removes keys. It is not repeated halfway: the session is tried out first.
    pub(super) fn with_writing<T>(&self, work: impl Fn(&Session) -> Result<T, Fault>) -> Result<T> {
        let module = loaded(&self.module).map_err(told)?;
        // Nobody else is at the token meanwhile: to a key pair that is made while another thread looks for keys, SoftHSM answers a general error.
        let mut live = guard(&self.live);
        let writing = self.attempt(&mut live, |live| Ok(module.open_rw_session(live.slot)?))?;
        work(&writing).map_err(told)
    }

    fn attempt<T>(&self, live: &mut Option<Live>, work: impl Fn(&Live) -> Result<T, Fault>) -> Result<T> {
        let was_open = live.is_some();
        let outcome = self.connected(live).and_then(&work);
        match outcome {
            Err(fault) if was_open && may_be_replugged(&fault) => {
                // Dropping the last session logs out, so that the next login is a real one.
                *live = None;
                self.connected(live).and_then(work).map_err(told)
            }
            other => other.map_err(told),
        }
    }

    fn connected<'a>(&self, live: &'a mut Option<Live>) -> Result<&'a Live, Fault> {
        if live.is_none() {
            let module = loaded(&self.module)?;
            let (slot, serial) = self.slot(&module)?;
            let session = module.open_ro_session(slot)?;
            match session.login(UserType::User, Some(&AuthPin::new(self.pin.expose().into()))) {
                // The host, or another identity with its own session, has logged in to the token.
                Ok(()) | Err(Answer::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
                Err(answer) => return Err(answer.into()),
            }
            *live = Some(Live { session, slot, serial });
        }
        live.as_ref().ok_or_else(|| Error::new(Kind::Internal, "a session was lost").into())
    }

    /// Where the token is plugged in.
    fn slot(&self, module: &Pkcs11) -> Result<(Slot, String), Fault> {
        let mut found = Vec::new();
        for slot in module.get_slots_with_token()? {
            // A slot may be emptied between the two calls; then it is none of ours.
            let Ok(token) = module.get_token_info(slot) else { continue };
            let is_it = token.label() == self.label && self.serial.as_deref().is_none_or(|serial| serial == token.serial_number());
            if is_it {
                found.push((slot, token.serial_number().to_owned()));
            }
        }
        match found.len() {
            1 => found.pop().ok_or(Fault::KeyGone),
            0 => Err(missing().into()),
            more => Err(Error::new(Kind::KeyStoreUnavailable, format!("{more} tokens have the same label"))
                .with_hint("unplug the others, or give the tokens labels of their own")
                .into()),
        }
    }
}

/// A module, loaded and initialized once per process.
fn loaded(path: &Path) -> Result<Pkcs11, Fault> {
    let mut modules = guard(&MODULES);
    if let Some(module) = modules.get(path) {
        return Ok(module.clone());
    }
    let module = Pkcs11::new(path)?;
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        // The host uses the same module itself.
        Ok(()) | Err(Answer::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(answer) => return Err(answer.into()),
    }
    modules.insert(path.to_owned(), module.clone());
    Ok(module)
}

/// Whether a new session may do better: the token was unplugged and is back, or somebody closed the session or logged out.
fn may_be_replugged(fault: &Fault) -> bool {
    match fault {
        Fault::KeyGone => true,
        Fault::Ours(_) => false,
        Fault::Answer(Answer::Pkcs11(answer, _)) => matches!(
            answer,
            RvError::SessionHandleInvalid
                | RvError::SessionClosed
                | RvError::DeviceRemoved
                | RvError::DeviceError
                | RvError::TokenNotPresent
                | RvError::TokenNotRecognized
                | RvError::SlotIdInvalid
                | RvError::UserNotLoggedIn
                | RvError::KeyHandleInvalid
                | RvError::ObjectHandleInvalid
        ),
        Fault::Answer(_) => false,
    }
}

/// What a caller hears.
fn told(fault: Fault) -> Error {
    let answer = match fault {
        Fault::Ours(error) => return error,
        Fault::KeyGone => {
            return Error::new(Kind::PrivateKeyMissing, "the token no longer holds the key")
                .with_hint("restore the key to the token, or rotate");
        }
        Fault::Answer(answer) => answer,
    };
    match answer {
        Answer::LibraryLoading(_) | Answer::MissingSymbol(_) => {
            Error::new(Kind::KeyStoreUnavailable, "the PKCS #11 module cannot be loaded")
                .with_hint("check the module's path and architecture")
        }
        Answer::Pkcs11(RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange, _) => wrong_pin("the token refused the PIN"),
        Answer::Pkcs11(RvError::PinLocked, _) => Error::new(Kind::WrongPassphrase, "the token has locked the PIN")
            .with_hint("unlock it with the token's own tool and the security officer's PIN"),
        Answer::Pkcs11(RvError::PinExpired, _) => {
            Error::new(Kind::WrongPassphrase, "the PIN has expired").with_hint("set a new one with the token's own tool")
        }
        Answer::Pkcs11(RvError::TokenNotPresent | RvError::DeviceRemoved | RvError::SlotIdInvalid | RvError::TokenNotRecognized, _) => {
            missing()
        }
        // The standard's own name of the return value; nothing that the token or the module wrote.
        Answer::Pkcs11(answer, _) => Error::new(Kind::KeyStoreUnavailable, format!("the token failed, PKCS #11 {answer:?}")),
        _ => Error::new(Kind::KeyStoreUnavailable, "the PKCS #11 module does not behave as the standard says"),
    }
}

fn missing() -> Error {
    Error::new(Kind::KeyStoreUnavailable, "the token is not plugged in")
        .with_hint("plug it in; pkcs11-tool --list-slots shows what is there")
}

fn wrong_pin(detail: &'static str) -> Error {
    Error::new(Kind::WrongPassphrase, detail).with_hint("a token locks itself after a few wrong PINs; do not guess")
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whatever was half done when a thread panicked is a session, and a dead session is opened anew.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
