//! Who gives way when both have written alone: every policy, by the outcome of a kernel's pair.

use anyhow::{Context, ensure};

use super::meeting::in_sync;
use super::table::{Maker, Party, Table};
use crate::side::Side;
use crate::tutorial::{Seat, Wish};

/// How a meeting ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// Both have what this one wrote.
    Wins(Seat),
    /// One of the two wins; which one depends on who dialled.
    EitherWins,
    /// Both leave.
    BothLeave,
    /// This one leaves, and the other may go on trying.
    Leaves(Seat),
}

use End::{BothLeave, EitherWins, Leaves, Wins};
use Seat::{First, Second};

/// A split brain and what is configured for it.
pub struct Case {
    /// The net section.
    net: &'static str,
    /// The same on `drbd1`, where it differs: what is local there is remote here.
    other_net: Option<&'static str>,
    /// Who was Primary when they parted.
    parted: Option<Seat>,
    /// Blocks that each wrote alone.
    blocks: [u32; 2],
    /// Who is Primary when they meet.
    primaries: &'static [Seat],
    /// Who is told to give way.
    discards: Option<Seat>,
    end: End,
}

const fn case(net: &'static str, primaries: &'static [Seat], end: End) -> Case {
    Case { net, other_net: None, parted: None, blocks: [3, 5], primaries, discards: None, end }
}

const NOBODY: &[Seat] = &[];
const ONE: &[Seat] = &[First];
const OTHER: &[Seat] = &[Second];
const BOTH: &[Seat] = &[First, Second];

/// With no Primary: drbd.conf's words, and how a kernel's pair ends with them.
pub const NO_PRIMARY: &[Case] = &[
    case("after-sb-0pri disconnect;", NOBODY, BothLeave),
    Case { parted: Some(First), ..case("after-sb-0pri discard-younger-primary;", NOBODY, Wins(First)) },
    Case { parted: Some(Second), ..case("after-sb-0pri discard-younger-primary;", NOBODY, Wins(Second)) },
    Case { parted: Some(First), ..case("after-sb-0pri discard-older-primary;", NOBODY, Wins(Second)) },
    case("after-sb-0pri discard-older-primary;", NOBODY, Wins(Second)),
    case("after-sb-0pri discard-zero-changes;", NOBODY, BothLeave),
    Case { blocks: [3, 0], ..case("after-sb-0pri discard-zero-changes;", NOBODY, Wins(First)) },
    Case { blocks: [0, 5], ..case("after-sb-0pri discard-zero-changes;", NOBODY, Wins(Second)) },
    Case { blocks: [0, 0], ..case("after-sb-0pri discard-zero-changes;", NOBODY, EitherWins) },
    case("after-sb-0pri discard-least-changes;", NOBODY, Wins(Second)),
    Case { blocks: [5, 3], ..case("after-sb-0pri discard-least-changes;", NOBODY, Wins(First)) },
    Case { blocks: [4, 4], ..case("after-sb-0pri discard-least-changes;", NOBODY, EitherWins) },
    Case {
        other_net: Some("after-sb-0pri discard-remote;"),
        ..case("after-sb-0pri discard-local;", NOBODY, Wins(Second))
    },
    Case {
        other_net: Some("after-sb-0pri discard-local;"),
        ..case("after-sb-0pri discard-remote;", NOBODY, Wins(First))
    },
];

/// With one.
pub const ONE_PRIMARY: &[Case] = &[
    case("after-sb-0pri discard-least-changes; after-sb-1pri disconnect;", ONE, BothLeave),
    case("after-sb-0pri discard-least-changes; after-sb-1pri consensus;", OTHER, Wins(Second)),
    case("after-sb-0pri discard-least-changes; after-sb-1pri consensus;", ONE, BothLeave),
    case("after-sb-0pri discard-least-changes; after-sb-1pri violently-as0p;", OTHER, Wins(Second)),
    case("after-sb-0pri discard-least-changes; after-sb-1pri violently-as0p;", ONE, Leaves(First)),
    case(
        "after-sb-0pri discard-least-changes; after-sb-1pri violently-as0p; rr-conflict violently;",
        ONE,
        Wins(Second),
    ),
    case("after-sb-1pri discard-secondary;", ONE, Wins(First)),
    case("after-sb-1pri discard-secondary;", OTHER, Wins(Second)),
    case("after-sb-0pri discard-least-changes; after-sb-1pri call-pri-lost-after-sb;", OTHER, Wins(Second)),
    case("after-sb-0pri discard-least-changes; after-sb-1pri call-pri-lost-after-sb;", ONE, Leaves(First)),
];

/// With two; and what the administrator says.
pub const TWO_PRIMARIES: &[Case] = &[
    case(
        "allow-two-primaries; after-sb-0pri discard-least-changes; after-sb-2pri disconnect;",
        BOTH,
        BothLeave,
    ),
    case(
        "allow-two-primaries; after-sb-0pri discard-least-changes; after-sb-2pri violently-as0p;",
        BOTH,
        Leaves(First),
    ),
    case(
        "allow-two-primaries; after-sb-0pri discard-least-changes; after-sb-2pri call-pri-lost-after-sb;",
        BOTH,
        Leaves(First),
    ),
    Case { discards: Some(First), ..case("", NOBODY, Wins(Second)) },
    Case { discards: Some(Second), ..case("", ONE, Wins(First)) },
    case("allow-two-primaries;", BOTH, BothLeave),
];

/// Each case, one after another, on the same two nodes.
pub fn policies(table: &mut Table, makers: [Maker; 2], cases: &[Case]) -> anyhow::Result<()> {
    let mut parties = in_sync(table, makers, &Wish::TUTORIAL, First)?;
    parties[0].run("drbdadm secondary r0")?;
    let mut wrong = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        let before = divide(table, &mut parties, case, index).with_context(|| case.to_string())?;
        let ended = meet_again(table, &mut parties, case, &before).with_context(|| case.to_string());
        if let Err(error) = ended {
            wrong.push(format!("{error:#}"));
        }
        reconcile(&mut parties).with_context(|| format!("after {case}"))?;
    }
    ensure!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    table.part(parties)
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { net, parted, blocks, primaries, discards, end, .. } = self;
        write!(
            f,
            "`{net}` parted {parted:?} blocks {blocks:?} primaries {primaries:?} discards {discards:?}: {end:?}"
        )
    }
}

/// Where both write alone.
const BLOCK: usize = 1000;

/// What a seat's disk holds there.
fn contested_block(table: &Table, seat: Seat) -> anyhow::Result<Vec<u8>> {
    Ok(table.content(seat)?[BLOCK * 4096..][..4096].to_vec())
}

fn contested_blocks(table: &Table) -> anyhow::Result<[Vec<u8>; 2]> {
    Ok([contested_block(table, First)?, contested_block(table, Second)?])
}

/// Runs a script on each side, both at once.
fn on_both(parties: &mut [Party; 2], script: impl Fn(Seat) -> String) -> anyhow::Result<[String; 2]> {
    let [first, second] = parties;
    let (one, other) = (script(First), script(Second));
    std::thread::scope(|scope| {
        let one = scope.spawn(|| first.run(&one));
        let other = second.run(&other);
        let one = one.join().unwrap_or_else(|_| anyhow::bail!("the script on drbd0 panicked"));
        Ok([one?, other?])
    })
}

/// Waits until the node has left its peer.
const AWAIT_ALONE: &str = "for i in $(seq 300); do [ $(drbdadm cstate r0) = StandAlone ] && break; sleep 0.1; done; \
     [ $(drbdadm cstate r0) = StandAlone ]";

/// They part, and each begins a generation of its own. Gives what each has where both may have written.
fn divide(
    table: &Table,
    parties: &mut [Party; 2],
    case: &Case,
    index: usize,
) -> anyhow::Result<[Vec<u8>; 2]> {
    if let Some(seat) = case.parted {
        parties[seat as usize].run("drbdadm primary r0")?;
    }
    parties[1].run("drbdadm disconnect r0")?;
    on_both(parties, |seat| {
        let blocks = case.blocks[seat as usize];
        let mark = format!("case-{index}-{}-", seat.name());
        let step_down = if case.primaries.contains(&seat) { "" } else { "drbdadm secondary r0; " };
        format!(
            "set -e; [ $(drbdadm cstate r0) = StandAlone ] || drbdadm disconnect r0; {AWAIT_ALONE}; drbdadm primary r0\n\
             if [ {blocks} != 0 ]; then yes {mark} | head -c {} | \
             dd of=/dev/drbd0 bs=4k count={blocks} seek={BLOCK} iflag=fullblock oflag=direct 2>/dev/null; fi\n\
             {step_down}sync",
            blocks * 4096
        )
    })?;
    contested_blocks(table)
}

/// What a side has come to, once that stays: it has left, is in sync, or goes on trying. (One that tries and is refused
/// again and again is between two attempts for a moment only.)
const SETTLE: &str = "same=0; before=; for i in $(seq 200); do\n\
     now=\"$(drbdadm cstate r0) $(drbdadm role r0) $(drbdadm dstate r0)\"\n\
     if [ \"$now\" = \"$before\" ]; then same=$((same + 1)); else same=0; fi; before=$now\n\
     case \"$now\" in StandAlone*) [ $same -ge 1 ] && break;; WFConnection*) [ $same -ge 8 ] && break;;\n\
     Connected*UpToDate/UpToDate) [ $same -ge 2 ] && break;; esac; sleep 0.3; done; echo \"$now\"";

fn meet_again(
    table: &Table,
    parties: &mut [Party; 2],
    case: &Case,
    before: &[Vec<u8>; 2],
) -> anyhow::Result<()> {
    for side in parties.iter_mut() {
        let net = case.other_net.filter(|_| side.seat() == Second).unwrap_or(case.net);
        side.configure(&Wish { net, ..Wish::TUTORIAL })?;
    }
    let states = on_both(parties, |seat| {
        let discard = if case.discards == Some(seat) { "--discard-my-data" } else { "" };
        format!("set -e; drbdadm connect {discard} r0; {SETTLE}")
    })?;
    let now = contested_blocks(table)?;
    let left = |seat: Seat| states[seat as usize].starts_with("StandAlone");
    let together = states.iter().all(|state| state.starts_with("Connected")) && now[0] == now[1];
    let as_expected = match case.end {
        Wins(seat) => together && now[0] == before[seat as usize],
        EitherWins => together && before.contains(&now[0]),
        BothLeave => left(First) && left(Second) && now == *before,
        Leaves(seat) => left(seat) && !together && now == *before,
    };
    let has = |seat: Seat| before.iter().position(|block| *block == now[seat as usize]);
    ensure!(as_expected, "ends {states:?}, with the blocks of {:?} and {:?}", has(First), has(Second));
    Ok(())
}

/// Whatever came of it, both are in sync and Secondary after this.
fn reconcile(parties: &mut [Party; 2]) -> anyhow::Result<()> {
    let states = on_both(parties, |_| "drbdadm cstate r0".to_owned())?;
    if states.iter().any(|state| state.trim() != "Connected") {
        for side in parties.iter_mut() {
            side.configure(&Wish::TUTORIAL)?;
        }
        on_both(parties, |_| {
            format!(
                "[ $(drbdadm cstate r0) = StandAlone ] || drbdadm disconnect r0; drbdadm secondary r0; {AWAIT_ALONE}"
            )
        })?;
        parties[1].run("drbdadm connect --discard-my-data r0")?;
        parties[0].run("drbdadm connect r0")?;
    }
    for side in parties.iter_mut() {
        side.await_in_sync()?;
    }
    on_both(parties, |_| "drbdadm secondary r0".to_owned()).map(drop)
}
