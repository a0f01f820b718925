//! Which crate stands on which floor, and that arrows point down.

use std::collections::HashMap;

use cargo_metadata::{DependencyKind, Metadata};

/// From the bottom up.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Floor {
    /// Quantities that formats share.
    Units,
    /// Bytes on disk and wire.
    Format,
    /// Decisions of several nodes.
    Engine,
    /// What the operating system gives.
    Port,
    /// Straight-line code above ports.
    Library,
    /// Daemons, and what a person types and reads.
    Top,
    /// The one program.
    Binary,
    /// Tests, measurements and the project's front door.
    Test,
}

/// Which product a crate belongs to; the ground is shared by all.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Product {
    Ground,
    Drbd,
}

struct Cell {
    name: &'static str,
    floor: Floor,
    product: Product,
    /// Crates on the same floor that it may use.
    beside: &'static [&'static str],
}

const fn cell(name: &'static str, floor: Floor, product: Product) -> Cell {
    Cell { name, floor, product, beside: &[] }
}

/// Every crate, in exactly one cell.
const CELLS: &[Cell] = &[
    cell("units", Floor::Units, Product::Ground),
    cell("drbd-format", Floor::Format, Product::Drbd),
    cell("drbd-engine", Floor::Engine, Product::Drbd),
    cell("block", Floor::Port, Product::Ground),
    cell("conf", Floor::Port, Product::Ground),
    cell("control", Floor::Port, Product::Ground),
    Cell { name: "fuse", floor: Floor::Port, product: Product::Ground, beside: &["block"] },
    cell("front", Floor::Library, Product::Ground),
    cell("drbd-node", Floor::Top, Product::Drbd),
    cell("drbd-tools", Floor::Top, Product::Drbd),
    cell("lab", Floor::Top, Product::Ground),
    cell("lockstep", Floor::Binary, Product::Ground),
    cell("bench", Floor::Test, Product::Ground),
    cell("fuzz", Floor::Test, Product::Ground),
    Cell { name: "interop", floor: Floor::Test, product: Product::Ground, beside: &["mirror"] },
    Cell { name: "mirror", floor: Floor::Test, product: Product::Ground, beside: &["testing-lab"] },
    cell("testing-lab", Floor::Test, Product::Ground),
    cell("sim", Floor::Test, Product::Ground),
    cell("xtask", Floor::Test, Product::Ground),
];

fn of(name: &str) -> Option<&'static Cell> {
    CELLS.iter().find(|cell| cell.name == name)
}

/// Whether a crate that is known to be of the format or the engine floor.
pub fn is_pure(name: &str) -> bool {
    of(name).is_some_and(|cell| matches!(cell.floor, Floor::Units | Floor::Format | Floor::Engine))
}

/// Every member has a cell, and every arrow between members is allowed.
pub fn check(metadata: &Metadata, breaches: &mut Vec<String>) {
    let members: HashMap<&str, _> =
        metadata.workspace_packages().into_iter().map(|package| (package.name.as_str(), package)).collect();
    for (name, package) in &members {
        let Some(from) = of(name) else {
            breaches.push(format!("crate `{name}` stands on no floor: give it a cell in {}", file!()));
            continue;
        };
        for dependency in &package.dependencies {
            // What only a crate's tests use is no arrow: tests may look down on anything they check.
            if dependency.kind == DependencyKind::Development
                || !members.contains_key(dependency.name.as_str())
            {
                continue;
            }
            if let Some(reason) = of(&dependency.name).and_then(|to| refused(from, to)) {
                breaches.push(format!("arrow {name} -> {}: {reason}", dependency.name));
            }
        }
    }
}

/// Why this arrow may not be.
fn refused(from: &Cell, to: &Cell) -> Option<&'static str> {
    if from.floor == Floor::Test {
        return (to.floor == Floor::Binary).then_some("tests run the program, they do not link it");
    }
    if to.floor > from.floor {
        return Some("arrows point down, this one points up");
    }
    if to.floor == from.floor && !from.beside.contains(&to.name) {
        return Some(match from.floor {
            Floor::Format => "a format knows `units` and nothing beside it",
            Floor::Engine => "an engine knows its own format, never another engine",
            Floor::Top => "tools and shells never link each other: they talk over `control`",
            _ => "both stand on the same floor",
        });
    }
    if from.floor == Floor::Engine && to.floor == Floor::Format && from.product != to.product {
        return Some("an engine knows only its own format");
    }
    if from.product == Product::Ground && to.product != Product::Ground && from.floor < Floor::Binary {
        return Some("the shared ground knows no product");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{Cell, Floor, Product, cell, of, refused};

    fn arrow(from: &str, to: &str) -> Option<&'static str> {
        refused(of(from).expect("a cell"), of(to).expect("a cell"))
    }

    #[test]
    fn the_table() {
        for (from, to) in [
            ("drbd-engine", "drbd-format"),
            ("drbd-node", "front"),
            ("fuse", "block"),
            ("lockstep", "drbd-node"),
            ("drbd-tools", "drbd-engine"),
            ("sim", "drbd-node"),
        ] {
            assert_eq!(arrow(from, to), None, "{from} -> {to}");
        }
        for (from, to) in [
            ("drbd-format", "drbd-engine"),
            ("block", "fuse"),
            ("drbd-tools", "drbd-node"),
            ("front", "drbd-engine"),
            ("lab", "drbd-tools"),
            ("interop", "lockstep"),
        ] {
            assert!(arrow(from, to).is_some(), "{from} -> {to}");
        }
        let other: Cell = cell("other-format", Floor::Format, Product::Ground);
        assert!(refused(of("drbd-engine").expect("a cell"), &other).is_some());
    }
}
