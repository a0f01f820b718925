//! The topology as a drawing: networks are bars, servers hang below them by the tabs of their interfaces, volumes
//! hang below their server. More servers than fit side by side go on in further rows, each under bars of its own; a
//! line at the left shows which bars are one network.

mod pen;

use super::{Disk, Interface, Machine, Topology};
use pen::{Anchor, Pen, bold_fitted, fitted};

/// Distance of everything from the border.
const MARGIN: i32 = 28;

/// Space for the title.
const TITLE: i32 = 64;

/// Servers side by side.
const PER_ROW_MAX: usize = 6;

const SERVER_WIDTH_MIN: i32 = 236;
const SERVER_GAP: i32 = 30;

/// Name, status and flavor of a server.
const HEAD: i32 = 54;

/// One line of addresses.
const LINE: i32 = 18;

const BAR: i32 = 28;
const BAR_GAP: i32 = 12;

/// From the last bar to the tabs.
const DROP: i32 = 30;

const TAB: i32 = 20;
const TAB_WIDTH: i32 = 46;
const TAB_PITCH: i32 = 54;

const DISK: i32 = 44;
const DISK_GAP: i32 = 12;

const ROW_GAP: i32 = 44;

/// Between the lines at the left that join the bars of one network.
const SPINE_PITCH: i32 = 10;

const BADGE: i32 = 9;

/// Fault numbers at one part; the last of more is an ellipsis.
const BADGES_MAX: usize = 4;

/// Colours of networks; further ones begin again.
const HUES: usize = 8;

/// Where the parts of the drawing are.
struct Layout {
    per_row: usize,
    server_width: i32,
    left: i32,
    width: i32,
}

impl Layout {
    fn of(topology: &Topology) -> Self {
        let per_row = topology.servers.len().clamp(2, PER_ROW_MAX);
        let rows = topology.servers.len().div_ceil(per_row);
        let tabs = topology.servers.iter().map(|server| server.interfaces.len()).max().unwrap_or_default();
        let server_width = SERVER_WIDTH_MIN.max(tabs as i32 * TAB_PITCH + 16);
        let spines = if rows > 1 { topology.networks.len() as i32 * SPINE_PITCH } else { 0 };
        let content = per_row as i32 * (server_width + SERVER_GAP) + SERVER_GAP;
        Self { per_row, server_width, left: MARGIN + spines, width: 2 * MARGIN + spines + content }
    }

    fn server_left(&self, column: usize) -> i32 {
        self.left + SERVER_GAP + column as i32 * (self.server_width + SERVER_GAP)
    }

    /// Middle of an interface's tab.
    fn tab(&self, column: usize, index: usize) -> i32 {
        self.server_left(column) + 8 + TAB_PITCH / 2 + index as i32 * TAB_PITCH
    }

    fn content_width(&self) -> i32 {
        self.width - self.left - MARGIN
    }
}

/// Draws it. The same topology always gives the same bytes.
pub fn draw(topology: &Topology) -> String {
    let layout = Layout::of(topology);
    let mut pen = Pen::default();
    pen.text("title", Anchor::Start, MARGIN, MARGIN + 12, &format!("lab {}", topology.lab));
    pen.text("muted", Anchor::Start, MARGIN, MARGIN + 32, &topology.summary());
    let mut top = TITLE + MARGIN / 2;
    let mut bars: Vec<i32> = Vec::new();
    let rows: Vec<&[Machine]> = if topology.servers.is_empty() {
        vec![&[]]
    } else {
        topology.servers.chunks(layout.per_row).collect()
    };
    for row in rows {
        bars.push(top);
        top = draw_row(&mut pen, &layout, topology, row, top);
    }
    spines(&mut pen, topology, &bars);
    top = spare_volumes(&mut pen, &layout, &topology.volumes, top);
    top = forwards(&mut pen, topology, top);
    top = faults(&mut pen, &layout, topology, top);
    pen.finish(layout.width, top + MARGIN - ROW_GAP, &format!("lab {}: {}", topology.lab, topology.summary()))
}

fn bar_top(top: i32, segment: usize) -> i32 {
    top + segment as i32 * (BAR + BAR_GAP)
}

/// Bars, servers below them and their volumes; gives where the next row begins.
fn draw_row(pen: &mut Pen, layout: &Layout, topology: &Topology, row: &[Machine], top: i32) -> i32 {
    let count = topology.networks.len();
    let tabs = if count == 0 { top } else { bar_top(top, count) - BAR_GAP + DROP };
    // Cables first: a bar hides those that pass it on their way to another.
    for (column, server) in row.iter().enumerate() {
        for (index, interface) in server.interfaces.iter().enumerate() {
            cable(
                pen,
                topology,
                interface,
                layout.tab(column, index),
                bar_top(top, interface.segment) + BAR,
                tabs,
            );
        }
    }
    for segment in 0..count {
        bar(pen, layout, topology, segment, bar_top(top, segment));
    }
    for (column, server) in row.iter().enumerate() {
        for (index, interface) in server.interfaces.iter().enumerate() {
            let x = layout.tab(column, index);
            let class = format!("dot {}", hue(interface.segment));
            pen.circle(&class, x, bar_top(top, interface.segment) + BAR, 4);
        }
    }
    if row.is_empty() {
        return if count == 0 { top } else { tabs - DROP + ROW_GAP };
    }
    let heads = tabs + TAB;
    let height = row.iter().map(server_height).max().unwrap_or_default();
    let mut bottom = heads;
    for (column, server) in row.iter().enumerate() {
        draw_server(pen, layout, column, server, heads, height);
        let mut disk_top = heads + height + DISK_GAP;
        for disk in &server.volumes {
            let middle = layout.server_left(column) + layout.server_width / 2;
            pen.line("stem", middle, disk_top - DISK_GAP, middle, disk_top);
            draw_disk(pen, disk, layout.server_left(column), disk_top, layout.server_width);
            disk_top += DISK + DISK_GAP;
        }
        bottom = bottom.max(disk_top - DISK_GAP);
    }
    bottom + ROW_GAP
}

fn hue(segment: usize) -> String {
    format!("n{}", segment % HUES)
}

fn cable(pen: &mut Pen, topology: &Topology, interface: &Interface, x: i32, from: i32, to: i32) {
    let cut = topology.networks[interface.segment].cut;
    if interface.unplugged {
        let middle = to - DROP / 2;
        pen.line("cable broken", x, from, x, to);
        pen.line("cross", x - 5, middle - 5, x + 5, middle + 5);
        pen.line("cross", x - 5, middle + 5, x + 5, middle - 5);
    } else {
        let class = if cut { "cable broken".to_owned() } else { format!("cable {}", hue(interface.segment)) };
        pen.line(&class, x, from, x, to);
    }
}

fn bar(pen: &mut Pen, layout: &Layout, topology: &Topology, segment: usize, top: i32) {
    let network = &topology.networks[segment];
    let broken = if network.cut { " broken" } else { "" };
    let (left, width) = (layout.left, layout.content_width());
    pen.rect("page", left, top, width, BAR, 6);
    pen.rect(&format!("bar {}{broken}", hue(segment)), left, top, width, BAR, 6);
    let mut addresses = network.cidr.to_string();
    if let Some(v6) = network.cidr_v6 {
        addresses = format!("{addresses}, {v6}");
    }
    if network.cut {
        addresses.push_str(" \u{b7} cut, passes nothing");
    }
    let baseline = top + BAR / 2 + 5;
    let room = width - 24 - pen::mono_width(&addresses) - badges_width(&network.faults);
    pen.text("name", Anchor::Start, left + 12, baseline, &bold_fitted(&network.label, room));
    let right = left + width - 12 - badges_width(&network.faults);
    pen.text("mono", Anchor::End, right, baseline, &addresses);
    badges(pen, &network.faults, left + width - 6, top + BAR / 2);
}

/// Joins the bars of each network at the left, if there is more than one row.
fn spines(pen: &mut Pen, topology: &Topology, bars: &[i32]) {
    let (Some(&first), Some(&last)) = (bars.first(), bars.last()) else { return };
    if first == last {
        return;
    }
    let left = MARGIN + topology.networks.len() as i32 * SPINE_PITCH;
    for segment in 0..topology.networks.len() {
        let class = format!("cable {}", hue(segment));
        let x = MARGIN + segment as i32 * SPINE_PITCH;
        let middle = |top: i32| bar_top(top, segment) + BAR / 2;
        pen.line(&class, x, middle(first), x, middle(last));
        for &top in bars {
            pen.line(&class, x, middle(top), left, middle(top));
        }
    }
}

fn server_height(server: &Machine) -> i32 {
    let lines: usize = server.interfaces.iter().map(|i| 1 + usize::from(i.address_v6.is_some())).sum();
    HEAD + lines as i32 * LINE + if lines == 0 { 0 } else { 12 }
}

fn draw_server(pen: &mut Pen, layout: &Layout, column: usize, server: &Machine, top: i32, height: i32) {
    let (left, width) = (layout.server_left(column), layout.server_width);
    let state = match server.status {
        "ACTIVE" => "on",
        "SHUTOFF" => "off",
        _ => "between",
    };
    for (index, interface) in server.interfaces.iter().enumerate() {
        let x = layout.tab(column, index);
        let broken = if interface.unplugged { " broken" } else { "" };
        pen.rect("page", x - TAB_WIDTH / 2, top - TAB, TAB_WIDTH, TAB + 4, 5);
        pen.rect(
            &format!("tab {}{broken}", hue(interface.segment)),
            x - TAB_WIDTH / 2,
            top - TAB,
            TAB_WIDTH,
            TAB + 4,
            5,
        );
        pen.text("tabname", Anchor::Middle, x, top - 6, &interface.name);
    }
    pen.rect(&format!("server {state}"), left, top, width, height, 8);
    pen.circle(&format!("lamp {state}"), left + 16, top + 19, 5);
    let status_width = pen::mono_width(server.status);
    let badges_width = badges_width(&server.faults);
    let room = width - 28 - 12 - status_width - 8;
    pen.text("name", Anchor::Start, left + 28, top + 24, &bold_fitted(&server.name, room));
    pen.text(&format!("mono {state}"), Anchor::End, left + width - 12, top + 24, server.status);
    pen.text("muted", Anchor::Start, left + 28, top + 41, &fitted(server.flavor, width - 40 - badges_width));
    badges(pen, &server.faults, left + width - 6, top + 38);
    let mut baseline = top + HEAD + 14;
    if !server.interfaces.is_empty() {
        pen.line("rule", left, top + HEAD, left + width, top + HEAD);
    }
    for interface in &server.interfaces {
        pen.text("mono muted", Anchor::Start, left + 12, baseline, &interface.name);
        pen.text("mono", Anchor::Start, left + 52, baseline, &interface.address.to_string());
        let right = left + width - 12;
        if let Some(mbit_per_s) = interface.mbit_per_s.filter(|_| interface.faults.is_empty()) {
            pen.text("mono muted", Anchor::End, right, baseline, &format!("{mbit_per_s} Mb/s"));
        }
        badges(pen, &interface.faults, left + width - 6, baseline - 4);
        baseline += LINE;
        if let Some(v6) = interface.address_v6 {
            pen.text(
                "mono",
                Anchor::Start,
                left + 52,
                baseline,
                &pen::mono_fitted(&v6.to_string(), width - 60),
            );
            baseline += LINE;
        }
    }
}

/// A cylinder, its device or its size, and its name.
fn draw_disk(pen: &mut Pen, disk: &Disk, left: i32, top: i32, width: i32) {
    pen.rect("disk", left, top, width, DISK, 8);
    pen.cylinder("drum", left + 12, top + 10, 20, 24);
    let size = format!("{} GB {}", disk.size_gib, disk.kind);
    let badges_width = badges_width(&disk.faults);
    let room = width - 44 - 12;
    match &disk.device {
        Some(device) => {
            pen.text("mono", Anchor::Start, left + 44, top + 19, device);
            pen.text("mono muted", Anchor::End, left + width - 12, top + 19, &size);
        }
        None => pen.text("mono muted", Anchor::Start, left + 44, top + 19, &size),
    }
    pen.text("muted", Anchor::Start, left + 44, top + 35, &fitted(&disk.name, room - badges_width));
    badges(pen, &disk.faults, left + width - 6, top + 33);
}

fn spare_volumes(pen: &mut Pen, layout: &Layout, volumes: &[Disk], top: i32) -> i32 {
    if volumes.is_empty() {
        return top;
    }
    pen.text("section", Anchor::Start, MARGIN, top, "Volumes without a server");
    let top = top + 14;
    for (index, disk) in volumes.iter().enumerate() {
        let row_top = top + (index / layout.per_row) as i32 * (DISK + DISK_GAP);
        draw_disk(pen, disk, layout.server_left(index % layout.per_row), row_top, layout.server_width);
    }
    top + volumes.len().div_ceil(layout.per_row) as i32 * (DISK + DISK_GAP) - DISK_GAP + ROW_GAP
}

fn forwards(pen: &mut Pen, topology: &Topology, top: i32) -> i32 {
    if topology.forwards.is_empty() {
        return top;
    }
    pen.text("section", Anchor::Start, MARGIN, top, "Forwards from this machine's loopback");
    let mut baseline = top;
    for forward in &topology.forwards {
        baseline += LINE + 3;
        let text = format!("port {} \u{2192} {}:{}", forward.port, forward.server, forward.server_port);
        pen.text("mono", Anchor::Start, MARGIN, baseline, &text);
    }
    baseline + ROW_GAP
}

fn faults(pen: &mut Pen, layout: &Layout, topology: &Topology, top: i32) -> i32 {
    if topology.faults.is_empty() {
        return top;
    }
    pen.text("section", Anchor::Start, MARGIN, top, "Faults in force");
    let mut baseline = top + 2;
    let words: Vec<String> = topology.faults.iter().map(|fault| fault.words.join(" ")).collect();
    let column =
        words.iter().map(|words| pen::mono_width(words)).max().unwrap_or_default().min(layout.width / 2);
    for (fault, words) in topology.faults.iter().zip(&words) {
        baseline += LINE + 6;
        badge(pen, &fault.number.to_string(), MARGIN + BADGE, baseline - 4);
        let left = MARGIN + 2 * BADGE + 10;
        pen.text("mono", Anchor::Start, left, baseline, &pen::mono_fitted(words, column));
        let room = layout.width - MARGIN - left - column - 20;
        pen.text("muted", Anchor::Start, left + column + 20, baseline, &fitted(&fault.meaning, room));
    }
    baseline + ROW_GAP
}

fn badges_width(faults: &[usize]) -> i32 {
    faults.len().min(BADGES_MAX) as i32 * (2 * BADGE + 2)
}

/// The faults' numbers, the last one with its right end at `right`.
fn badges(pen: &mut Pen, faults: &[usize], right: i32, middle: i32) {
    let shown = if faults.len() > BADGES_MAX { BADGES_MAX - 1 } else { faults.len() };
    let mut texts: Vec<String> = faults.iter().take(shown).map(usize::to_string).collect();
    if shown < faults.len() {
        texts.push("\u{2026}".to_owned());
    }
    for (place, text) in (0..).zip(texts.iter().rev()) {
        badge(pen, text, right - BADGE - place * (2 * BADGE + 2), middle);
    }
}

fn badge(pen: &mut Pen, text: &str, x: i32, y: i32) {
    pen.circle("badge", x, y, BADGE);
    let class = if text.len() > 2 && text.is_ascii() { "number tight" } else { "number" };
    pen.text(class, Anchor::Middle, x, y + 4, text);
}
