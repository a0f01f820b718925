//! Which calls a verb means.

use super::cli::{Cli, Verb};
use super::setup_option::SetupOption;
use super::step::{Bounds, Ends, Step, VolumeRef};
use super::{EXIT_CONFIGURATION, Selected};
use crate::drbd_conf::model::{Config, Host, Place, Resource};

/// What is needed to say which calls a verb means.
pub struct Plan<'c> {
    pub(super) verb: Verb,
    force: bool,
    pub(super) discard_my_data: bool,
    bounds: Bounds,
    clear_bitmap: bool,
    setup: &'c [SetupOption],
    generations: Option<&'c str>,
    peer: Option<&'c str>,
    config: &'c Config,
    pub(super) node: &'c str,
}

impl<'c> Plan<'c> {
    /// For a command line on `node`.
    pub fn new(cli: &'c Cli, config: &'c Config, node: &'c str) -> Self {
        Self {
            verb: cli.verb,
            force: cli.force,
            discard_my_data: cli.discard_my_data,
            bounds: Bounds { start_sector: cli.start, stop_sector: cli.stop },
            clear_bitmap: cli.clear_bitmap,
            setup: &cli.setup,
            generations: cli.generations(),
            peer: cli.peer.as_deref(),
            config,
            node,
        }
    }

    /// Minor of the volume that `resync-after` names: `RES` or `RES/VOL`.
    pub fn minor_of(&self, name: &str) -> Option<u32> {
        let (name, volume) = name.split_once('/').map_or((name, None), |(name, volume)| (name, Some(volume)));
        let volumes = &self.config.resource(name)?.host(self.node)?.volumes;
        let volume = match volume {
            Some(number) => volumes.iter().find(|volume| volume.number.to_string() == number)?,
            None => volumes.first()?,
        };
        volume.minor.map(|(minor, _)| minor)
    }

    /// The volumes of what is selected.
    pub fn volumes(&self, selected: Selected<'c>) -> Vec<VolumeRef<'c>> {
        let volumes = selected.resource.host(self.node).map_or(&[][..], |host| &host.volumes);
        volumes
            .iter()
            .filter(|volume| selected.volume.is_none_or(|number| volume.number == number))
            .map(|volume| VolumeRef { resource: selected.resource, volume })
            .collect()
    }

    /// The volumes that this node has of a resource.
    pub fn all_volumes(&self, resource: &'c Resource) -> Vec<VolumeRef<'c>> {
        self.volumes(Selected { resource, volume: None })
    }

    /// `udev-always-use-vnr`.
    pub fn always_uses_numbers(&self) -> bool {
        self.config.global.udev_always_use_vnr
    }

    /// The resource below one that is stacked here.
    pub fn lower(&self, resource: &Resource) -> Option<String> {
        match &resource.host(self.node)?.place {
            Place::StackedOn(lower) => Some(lower.text.clone()),
            _ => None,
        }
    }

    /// This node's address for a resource.
    pub fn own_address(&self, resource: &Resource) -> Option<String> {
        Some(resource.host(self.node)?.address.as_ref()?.written.clone())
    }

    /// Whether `become-primary-on` names this node, or both.
    fn is_to_become_primary(&self, resource: &Resource) -> bool {
        let names = &resource.sections.become_primary_on;
        names.iter().any(|name| name.text == self.node || name.text == "both")
    }

    /// The other node's section, if there are two.
    pub fn peer_of(&self, resource: &'c Resource) -> Option<&'c Host> {
        resource.peer_of(self.node, self.peer)
    }

    pub(super) fn ends(&self, resource: &'c Resource) -> Result<Ends<'c>, u8> {
        match (resource.host(self.node), self.peer_of(resource)) {
            (Some(us), Some(peer)) => Ok(Ends { resource, us, peer }),
            _ => {
                let name = &resource.name.text;
                match resource.hosts.len() {
                    0 | 1 => eprintln!("in resource {name}: Missing section 'on <PEER> {{ ... }}'."),
                    _ => eprintln!(
                        "in resource {name}: There are multiple host sections for the peer node.\n\
                         Use the --peer option to select which peer section to use."
                    ),
                }
                Err(EXIT_CONFIGURATION)
            }
        }
    }

    /// The calls for one resource, of every verb but `up` and `adjust`.
    pub fn steps(&self, selected: Selected<'c>) -> Result<Vec<Step<'c>>, u8> {
        let resource = selected.resource;
        let volumes = self.volumes(selected);
        let each = |step: &dyn Fn(VolumeRef<'c>) -> Step<'c>| volumes.iter().map(|&of| step(of)).collect();
        Ok(match self.verb {
            Verb::DiskOptions => each(&|of| Step::ChangeDisk(of, self.setup)),
            Verb::NetOptions => vec![Step::ChangeNet(self.ends(resource)?, self.setup)],
            Verb::ResourceOptions => vec![Step::ChangeResource(resource, self.setup)],
            Verb::NewResource => vec![Step::NewResource(resource)],
            Verb::NewMinor => each(&Step::NewMinor),
            Verb::PauseSync => each(&|of| Step::Sync(of, "pause-sync")),
            Verb::ResumeSync => each(&|of| Step::Sync(of, "resume-sync")),
            Verb::SuspendIo => each(&|of| Step::Sync(of, "suspend-io")),
            Verb::ResumeIo => each(&|of| Step::Sync(of, "resume-io")),
            Verb::Outdate => each(&|of| Step::Sync(of, "outdate")),
            Verb::Invalidate => each(&|of| Step::Sync(of, "invalidate")),
            Verb::InvalidateRemote => each(&|of| Step::Sync(of, "invalidate-remote")),
            Verb::Verify => each(&|of| Step::Verify(of, self.bounds)),
            Verb::Resize => each(&|of| Step::Resize(of, self.setup)),
            Verb::CheckResize => each(&|of| Step::CheckResize(of, self.setup)),
            Verb::NewCurrentUuid => each(&|of| Step::NewCurrentUuid(of, self.clear_bitmap)),
            Verb::ShowGi => each(&|of| Step::State(of, "show-gi")),
            Verb::GetGi => each(&|of| Step::State(of, "get-gi")),
            Verb::ShStatus => each(&|of| Step::State(of, "sh-status")),
            Verb::SetGi => each(&|of| Step::SetGi(of, self.generations.unwrap_or_default(), self.force)),
            Verb::WipeMd => each(&|of| Step::Meta(of, "wipe-md", self.force)),
            Verb::WaitConnect => each(&Step::WaitConnect),
            Verb::ShBPri if !self.is_to_become_primary(resource) => Vec::new(),
            Verb::ShBPri => each(&|of| Step::Primary(of, false)),
            Verb::Down => vec![Step::Down(resource)],
            Verb::Status => vec![Step::Status(resource)],
            Verb::Connect => vec![Step::Connect(self.ends(resource)?, self.discard_my_data)],
            Verb::Disconnect => vec![Step::Disconnect(self.ends(resource)?, self.force)],
            Verb::Attach => volumes.iter().flat_map(|&of| attach_steps(of)).collect(),
            Verb::Detach => each(&|of| Step::Detach(of, self.force)),
            Verb::Primary => each(&|of| Step::Primary(of, self.force)),
            Verb::Secondary => each(&Step::Secondary),
            Verb::Role => each(&|of| Step::State(of, "role")),
            Verb::Cstate => each(&|of| Step::State(of, "cstate")),
            Verb::Dstate => each(&|of| Step::State(of, "dstate")),
            Verb::CreateMd => each(&|of| Step::Meta(of, "create-md", self.force)),
            Verb::DumpMd => each(&|of| Step::Meta(of, "dump-md", self.force)),
            Verb::ApplyAl => each(&|of| Step::Meta(of, "apply-al", self.force)),
            // These have their own ways.
            Verb::Up
            | Verb::Adjust
            | Verb::AdjustWithProgress
            | Verb::Dump
            | Verb::DumpXml
            | Verb::WaitConInt
            | Verb::HiddenCommands
            | Verb::ShNop
            | Verb::ShResources
            | Verb::ShResource
            | Verb::ShModParms
            | Verb::ShDev
            | Verb::ShUdev
            | Verb::ShMinor
            | Verb::ShLlDev
            | Verb::ShMdDev
            | Verb::ShMdIdx
            | Verb::ShIp
            | Verb::ShLrOf
            | Verb::ProxyUp
            | Verb::ProxyDown
            | Verb::BeforeResyncTarget
            | Verb::AfterResyncTarget
            | Verb::BeforeResyncSource
            | Verb::PriOnInconDegr
            | Verb::PriLostAfterSb
            | Verb::FencePeer
            | Verb::UnfencePeer
            | Verb::LocalIoError
            | Verb::PriLost
            | Verb::InitialSplitBrain
            | Verb::SplitBrain
            | Verb::OutOfSync => Vec::new(),
        })
    }
}

pub(super) fn attach_steps(of: VolumeRef<'_>) -> Vec<Step<'_>> {
    if of.volume.is_diskless() {
        return Vec::new();
    }
    vec![Step::Meta(of, "apply-al", false), Step::Attach(of)]
}
