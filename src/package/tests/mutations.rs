//! Ten thousand ways to tamper with a package, drawn at random from a fixed seed: every one is refused, and nothing that is not the sender's
//! comes out.
//!
//! The attacker holds the store: it flips, cuts, extends, swaps and repeats bytes, mixes the objects of two packages of the same sender and
//! recipient, and, being a confirmed peer itself, signs headers of its own making.

use std::fs;

use super::super::header::{Header, ObjectRef, Signed};
use super::super::*;
use super::world::{World, befriend, key_store};
use crate::control::Control;
use crate::keys::{PrivateKeys, PublicPair};

/// Packages with several packs of several chunks.
const PACK_BYTES: u64 = 60_000;
const ROUNDS: usize = 5_200;

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, limit: usize) -> usize {
        (self.roll() % limit.max(1) as u64) as usize
    }
    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.roll() as u8).collect()
    }
}

/// A world with two sealed packages, and a third party that the researcher trusts as a sender too.
struct Attack {
    world: World,
    mallory: (PublicPair, std::sync::Arc<dyn PrivateKeys>),
    /// Files of package `p`, in order.
    genuine: Vec<Vec<u8>>,
    dice: Dice,
}

impl Attack {
    fn new(seed: u64) -> Attack {
        let world = World::new();
        let mut dice = Dice(seed);
        let files: Vec<(String, Vec<u8>)> = (0..6).map(|n| (format!("IM{n}"), dice.bytes(20_000 + 7_000 * n))).collect();
        let borrowed: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        world.seal_for("p", &borrowed, &[&world.researcher_id], &Control::new(), PACK_BYTES).unwrap();
        // Other contents of the same sizes, so that only keys and digests can tell the two apart.
        let other: Vec<(String, Vec<u8>)> = files.iter().map(|(name, bytes)| (name.clone(), dice.bytes(bytes.len()))).collect();
        let borrowed: Vec<(&str, &[u8])> = other.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        world.seal_for("q", &borrowed, &[&world.researcher_id], &Control::new(), PACK_BYTES).unwrap();
        let keys = key_store(world.place.path().join("mallory"));
        let id = keys.generate("x").unwrap();
        befriend(&world.researcher, &keys, &id);
        let mallory = keys.signer(&id).unwrap();
        Attack { world, mallory, genuine: files.into_iter().map(|(_, bytes)| bytes).collect(), dice }
    }

    /// Names of the objects of a package: header, manifest, packs in the order of the header.
    fn objects(&self, path: &str) -> Vec<String> {
        let bytes = self.world.bytes(&format!("{path}/header.smp"));
        let Signed { header, .. } = header::parse(&bytes).unwrap();
        let manifest = format!("{path}/{}", header.manifest.file_name(derive::Role::Manifest));
        let packs = header.packs.iter().map(|pack| format!("{path}/{}", pack.file_name(derive::Role::Pack)));
        [format!("{path}/header.smp"), manifest].into_iter().chain(packs).collect()
    }

    /// One mutation of the bytes of an object, given the bytes at the same place in the other package.
    fn mutate(&mut self, good: &[u8], other: &[u8]) -> (&'static str, Vec<u8>) {
        let dice = &mut self.dice;
        let mut bad = good.to_vec();
        let length = bad.len();
        // A block somewhere; half of them on the borders of chunks, where a splice is most plausible.
        let mut block = |most: usize| {
            let size = 1 + dice.below(most.min(length - 1));
            let start = dice.below(length - size);
            if dice.roll().is_multiple_of(2) && length > 40_000 {
                let start = 56 + 16_400 * dice.below((length - 56) / 16_400);
                return start..(start + 16_400).min(length);
            }
            start..start + size
        };
        let name = match block(8).start % 7 {
            0 => {
                for _ in 0..=dice.below(3) {
                    let at = dice.below(length);
                    bad[at] ^= 1 << dice.below(8);
                }
                "flip"
            }
            1 => {
                bad.truncate(dice.below(length));
                "cut"
            }
            2 => {
                let extra = 1 + dice.below(20_000);
                bad.extend(dice.bytes(extra));
                "extend"
            }
            3 => {
                let (a, b) = (block(20_000), block(20_000));
                let size = a.len().min(b.len());
                let (first, second) = (good[a.start..a.start + size].to_vec(), good[b.start..b.start + size].to_vec());
                bad[a.start..a.start + size].copy_from_slice(&second);
                bad[b.start..b.start + size].copy_from_slice(&first);
                "swap"
            }
            4 => {
                let block = block(20_000);
                let at = block.end;
                bad.splice(at..at, good[block].to_vec());
                "duplicate"
            }
            5 => {
                let block = block(20_000);
                drop(bad.drain(block));
                "delete"
            }
            _ => {
                let block = block(40_000);
                let end = block.end.min(other.len());
                let start = block.start.min(end);
                bad[start..end].copy_from_slice(&other[start..end]);
                "splice"
            }
        };
        (name, bad)
    }

    /// Reads `p` and sees that it is refused and that whatever was handed out before is the sender's, from a pack in front of the damage.
    fn refused(&self, what: &str, round: usize) {
        let Err((kind, _, files)) = self.world.read("p") else { panic!("round {round}: {what} was accepted") };
        assert!(kind != Kind::Internal, "round {round}: {what} is a defect");
        assert!(files.len() < self.genuine.len() && files == self.genuine[..files.len()], "round {round}: {what}");
        if round.is_multiple_of(100) {
            let target = self.world.place.path().join("out");
            let (client, keys) = (&self.world.client, &self.world.researcher);
            assert!(unseal_to(client, "p", &target, keys, &[], &Limits::default(), &Control::new()).is_err());
            assert!(!target.exists(), "round {round}: {what}");
        }
    }

    /// A header that the third party made out of the two genuine ones and signed, in its own name or in the hospital's.
    fn forged_header(&mut self) -> (&'static str, Vec<u8>) {
        let (p, q) = (self.world.bytes("p/header.smp"), self.world.bytes("q/header.smp"));
        let (mut header, other): (Header, Header) = (header::parse(&p).unwrap().header, header::parse(&q).unwrap().header);
        let dice = &mut self.dice;
        let name = match dice.below(8) {
            0 => "re-signed as it is",
            1 => {
                // Roles exchanged: a pack is called the manifest and the manifest a pack.
                std::mem::swap(&mut header.manifest, &mut header.packs[0]);
                "roles swapped"
            }
            2 => {
                let last = header.packs.len() - 1;
                header.packs.swap(0, last);
                "packs reordered"
            }
            3 => {
                header.packs.pop();
                "a pack dropped"
            }
            4 => {
                header.packs[0] = other.packs[0].clone();
                "a pack of another package"
            }
            5 => {
                header.manifest = ObjectRef { root: other.manifest.root, ..header.manifest };
                "another manifest's hash"
            }
            6 => {
                header.package = other.package;
                header.recipients = other.recipients;
                "another package's key"
            }
            _ => {
                header.created = "2020-01-01T00:00:00Z".to_owned();
                header.purpose = "something else".to_owned();
                "another time and purpose"
            }
        };
        if dice.roll().is_multiple_of(2) {
            header.sender = self.mallory.0.sign_digest();
        }
        let message = header.message().unwrap();
        let signature = match dice.below(3) {
            // The genuine signature over something else.
            0 if message.as_bytes() != header::parse(&p).unwrap().message => header::parse(&p).unwrap().signature,
            _ => self.mallory.1.sign(message.as_bytes()).unwrap(),
        };
        (name, header::write(&message, &signature))
    }

    fn run(mut self) -> std::collections::BTreeMap<String, usize> {
        assert!(self.world.read("p").unwrap() == self.genuine, "the package is genuine to begin with");
        let (here, there) = (self.objects("p"), self.objects("q"));
        assert_eq!((here.len(), there.len()), (7, 7), "header, manifest, five packs");
        let mut counts = std::collections::BTreeMap::new();
        let mut round = 0;
        while round < ROUNDS {
            let at = self.dice.below(here.len());
            let good = self.world.bytes(&here[at]);
            let (what, restore) = match self.dice.below(10) {
                0 => {
                    let (what, forged) = self.forged_header();
                    let good = self.world.bytes(&here[0]);
                    self.world.put(&here[0], forged);
                    (what.to_owned(), vec![(here[0].clone(), good)])
                }
                1 => {
                    // Two objects exchange their contents: pack and pack, pack and manifest, here and in the other package.
                    let name = if self.dice.roll().is_multiple_of(2) { &here[self.dice.below(7)] } else { &there[self.dice.below(7)] };
                    let other = self.world.bytes(name);
                    if other == good {
                        continue;
                    }
                    self.world.put(&here[at], other.clone());
                    self.world.put(name, good.clone());
                    ("objects swapped".to_owned(), vec![(name.clone(), other), (here[at].clone(), good)])
                }
                _ => {
                    let (what, bad) = self.mutate(&good, &self.world.bytes(&there[at]));
                    if bad == good {
                        continue;
                    }
                    self.world.put(&here[at], bad);
                    (what.to_owned(), vec![(here[at].clone(), good)])
                }
            };
            self.refused(&what, round);
            restore.into_iter().for_each(|(name, bytes)| self.world.put(&name, bytes));
            *counts.entry(what).or_default() += 1;
            round += 1;
        }
        assert!(self.world.read("p").unwrap() == self.genuine, "and genuine in the end");
        counts
    }
}

fn attack(seed: u64) {
    let counts = Attack::new(seed).run();
    assert_eq!(counts.values().sum::<usize>(), ROUNDS);
    for kind in ["flip", "cut", "extend", "swap", "duplicate", "delete", "splice", "objects swapped"] {
        assert!(counts.get(kind).is_some_and(|count| *count > 100), "{kind}: {counts:?}");
    }
    let forged: usize = counts.iter().filter(|(kind, _)| kind.contains(' ') && *kind != "objects swapped").map(|(_, count)| count).sum();
    assert!(forged > 300, "{counts:?}");
}

// Two halves, so that they run side by side.

#[test]
fn five_thousand_mutations_are_refused() {
    attack(1);
}

#[test]
fn five_thousand_other_mutations_are_refused() {
    attack(2);
}

#[test]
fn mutations_of_a_pack_of_several_ranges_are_refused_at_the_range() {
    let world = World::new();
    let mut dice = Dice(3);
    let large = dice.bytes(20 << 20);
    world.seal("p", &[("a", b"small"), ("b", &large)]).unwrap();
    let name = world.name("p", ".smpp");
    let good = world.bytes(&name);
    for round in 0..60 {
        let at = dice.below(good.len());
        let mut bad = good.clone();
        match round % 3 {
            0 => bad[at] ^= 1 << dice.below(8),
            1 => bad.truncate(at),
            _ => {
                let (a, b) = (tree::ranges(good.len() as u64)[1].clone(), tree::ranges(good.len() as u64)[0].clone());
                let size = 1000 * (1 + dice.below(8000));
                bad.copy_within(a.start as usize..a.start as usize + size, b.start as usize + 56);
            }
        }
        world.put(&name, bad);
        let (kind, detail, files) = world.read("p").unwrap_err();
        assert!(kind == Kind::IntegrityFailed && detail.starts_with("pack 0"), "{detail}");
        // The first file lies in a range that may be genuine; the large one needs all of them.
        assert!(files.is_empty() || files == [b"small".to_vec()], "round {round}");
    }
    world.put(&name, good);
    assert!(world.read("p").unwrap()[1] == large);
    let _ = fs::remove_dir_all(world.place.path().join("out"));
}
