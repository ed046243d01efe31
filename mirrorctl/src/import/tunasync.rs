//! tunasync's `worker.conf`: `[global]`, `[[mirrors]]` with their children, which inherit what they do not give, and the
//! files of `[include] include_mirrors`.
//!
//! Read as tunasync reads it (its worker/config.go and providers): a value that is empty, 0 or false in a child is no
//! value; an interval counts in minutes from the end of a run; rsync_override replaces its own flags, rsync_options follow
//! them. Knows no include files itself: [`Included`] reads them.

use zeroize::Zeroizing;

use super::{Draft, IMPORT_PROJECTS_MAX, Import, finish, options, shell, tree};
use crate::manifest::{
    Format,
    document::{self, Data, Node},
};

/// Most files that `include_mirrors` may name.
pub const INCLUDED_FILES_MAX: usize = 1_000;
/// Deepest `[[mirrors.mirrors]]`.
const DEPTH_MAX: usize = 16;
/// rsync's `--timeout` where a mirror gives none, in seconds.
const TIMEOUT_DEFAULT_S: i64 = 120;
/// Exit codes that are a success here without being told.
const CODE_VANISHED: i64 = 24;
/// The partial transfer, which a project may call a success.
const CODE_PARTIAL: i64 = 23;

/// Reads the files of an include pattern: their names and texts.
pub type Included<'a> = dyn FnMut(&str) -> Result<Vec<(String, String)>, String> + 'a;

/// Tables of the worker itself, and where their like is here.
const SECTIONS: &[(&str, &str)] = &[
    ("manager", "[manager] is left out: agents dial the coordinator that enrolled them"),
    ("server", "[server] is left out: agents listen for nobody"),
    ("cgroup", "[cgroup] is left out: an agent bounds rsync by its own file"),
    ("zfs", "[zfs] is left out: it only checked that a tree is a mount point"),
];
/// Keys of a mirror that mean nothing for an rsync mirror here.
const LEFT_OUT: &[(&str, &str)] = &[
    ("memory_limit", "the agent bounds rsync's memory for all projects: rsync_memory_mib in agent.toml"),
    ("log_dir", "the coordinator and the agents keep the logs"),
    ("size_pattern", "the size comes from rsync's own statistics"),
    ("fail_on_match", "tunasync uses it for commands only"),
    ("stage1_profile", "it belongs to the provider two-stage-rsync"),
    ("role", "it was a label only"),
    ("docker_volumes", "it belongs to docker_image"),
    ("docker_options", "it belongs to docker_image"),
    ("snapshot_path", "it belongs to [btrfs_snapshot]"),
];
/// Keys of a mirror that are read.
const KNOWN: &[&str] = &[
    "name",
    "provider",
    "upstream",
    "interval",
    "retry",
    "timeout",
    "mirror_dir",
    "mirror_subdir",
    "env",
    "exec_on_success",
    "exec_on_failure",
    "exec_on_success_extra",
    "exec_on_failure_extra",
    "success_exit_codes",
    "rsync_success_exit_codes",
    "command",
    "use_ipv6",
    "use_ipv4",
    "exclude_file",
    "username",
    "password",
    "rsync_no_timeout",
    "rsync_timeout",
    "rsync_options",
    "rsync_override",
    "rsync_override_only",
    "docker_image",
    "mirrors",
];

/// A mirror's fields, those of its parents included.
type Fields = Vec<(String, Node)>;

/// What `[global]` and the switches of the other tables say.
#[derive(Default)]
struct Global {
    fields: Fields,
    docker: bool,
    btrfs: bool,
}

/// Reads the text and what it includes.
pub(super) fn read(import: &mut Import<'_>, text: &str, included: &mut Included<'_>) {
    let Some(root) = parse(import, "", text) else { return };
    let mut global = Global::default();
    let mut mirrors: Vec<(String, Node)> = Vec::new();
    let mut pattern = String::new();
    for (key, node) in root {
        let line = tree::place(node.line, &key);
        match key.as_str() {
            "global" => global.fields = tree::table(&node, "global", &mut import.faults).to_vec(),
            "mirrors" => mirrors.extend(list(import, &line, node)),
            "docker" => global.docker = is_enabled(import, "docker", &node),
            "btrfs_snapshot" => global.btrfs = is_enabled(import, "btrfs_snapshot", &node),
            "include" => {
                for (key, value) in tree::table(&node, "include", &mut import.faults) {
                    if key == "include_mirrors" {
                        pattern = tree::text(value, "include.include_mirrors", &mut import.faults);
                    }
                }
            }
            other => match SECTIONS.iter().find(|(name, _)| *name == other) {
                Some((_, text)) => import.once(text),
                None => import
                    .leave_out(line, format!("{:?} is no table that tunasync reads", finish::shown(other))),
            },
        }
    }
    if !pattern.is_empty() {
        include(import, &pattern, included, &mut mirrors);
    }
    global_fields(import, &global);
    let mut walk = Walk { global: &global, count: 0 };
    for (file, node) in &mirrors {
        walk.mirror(import, file, &Fields::new(), node, 0);
    }
    if mirrors.is_empty() && import.faults.is_empty() {
        import.faults.add("mirrors", "holds no [[mirrors]]");
    }
}

fn parse(import: &mut Import<'_>, file: &str, text: &str) -> Option<Fields> {
    match document::parse(text, Format::Toml) {
        Ok(Node { data: Data::Table(fields), .. }) => Some(fields),
        Ok(_) => None,
        Err(bad) => {
            import.faults.add(in_file(file, &tree::place(bad.line, "the file")), bad.text);
            None
        }
    }
}

fn in_file(file: &str, place: &str) -> String {
    if file.is_empty() { place.to_owned() } else { format!("{file} {place}") }
}

fn list(import: &mut Import<'_>, place: &str, node: Node) -> Vec<(String, Node)> {
    match node.data {
        Data::List(mirrors) => mirrors.into_iter().map(|one| (String::new(), one)).collect(),
        other => {
            import.faults.add(place, format_args!("mirrors must be [[mirrors]], not {}", other.kind()));
            Vec::new()
        }
    }
}

fn is_enabled(import: &mut Import<'_>, at: &str, node: &Node) -> bool {
    let fields = tree::table(node, at, &mut import.faults);
    let enable = fields.iter().find(|(key, _)| key == "enable");
    enable.is_some_and(|(_, value)| tree::flag(value, &format!("{at}.enable"), &mut import.faults))
}

fn include(
    import: &mut Import<'_>,
    pattern: &str,
    included: &mut Included<'_>,
    mirrors: &mut Vec<(String, Node)>,
) {
    let files = match included(pattern) {
        Ok(files) => files,
        Err(why) => {
            return import.faults.add("include_mirrors", format_args!("{:?}: {why}", finish::shown(pattern)));
        }
    };
    if files.is_empty() {
        import.leave_out("include_mirrors", format!("no file has a name like {:?}", finish::shown(pattern)));
    }
    for (file, text) in files {
        for (key, node) in parse(import, &file, &text).unwrap_or_default() {
            let place = in_file(&file, &tree::place(node.line, &key));
            if key == "mirrors" {
                mirrors.extend(list(import, &place, node).into_iter().map(|(_, one)| (file.clone(), one)));
            } else {
                import.leave_out(
                    place,
                    format!("tunasync reads no {:?} in included files", finish::shown(&key)),
                );
            }
        }
    }
}

/// What holds for all mirrors is said once.
fn global_fields(import: &mut Import<'_>, global: &Global) {
    for (key, node) in &global.fields {
        match key.as_str() {
            "name" if import.origin.is_none() => {
                let name = tree::text(node, "global.name", &mut import.faults);
                import.once(&format!(
                    "the origin is the agent {:?}, the worker's name; --origin AGENT names another",
                    finish::shown(&name)
                ));
                import.origin = Some(name);
            }
            "concurrent" => {
                import.once("concurrent is left out: an agent's slots are in its own file, agent.toml")
            }
            _ => {}
        }
    }
    import.once(
        "tunasync's own flags become the fleet's own: the same tree without devices, deletes at the end, a limit on \
         deletes, and a run that moves nothing for 30m or takes longer than 48h is ended",
    );
}

/// The walk down the mirrors and their children.
struct Walk<'a> {
    global: &'a Global,
    count: usize,
}

impl Walk<'_> {
    fn mirror(&mut self, import: &mut Import<'_>, file: &str, parent: &Fields, node: &Node, depth: usize) {
        let place = in_file(file, &tree::place(node.line, "mirrors"));
        let own = tree::table(node, "mirrors", &mut import.faults);
        let children = own.iter().find(|(key, _)| key == "mirrors").map(|(_, node)| node);
        let fields = merged(parent, own);
        let Some(children) = children else {
            self.count += 1;
            let draft = Mirror { global: self.global, fields: &fields, file }.draft(import, place);
            if self.count <= IMPORT_PROJECTS_MAX + 1 {
                import.take(draft);
            }
            return;
        };
        if depth >= DEPTH_MAX {
            return import.faults.add(place, format_args!("mirrors are nested deeper than {DEPTH_MAX}"));
        }
        for (_, child) in list(import, &place, children.clone()) {
            if self.count > IMPORT_PROJECTS_MAX {
                return;
            }
            self.mirror(import, file, &fields, &child, depth + 1);
        }
    }
}

/// A child's fields over its parent's; empty ones are none, and the environments are one.
fn merged(parent: &Fields, own: &[(String, Node)]) -> Fields {
    let mut fields = parent.clone();
    for (key, node) in own.iter().filter(|(key, node)| key != "mirrors" && !is_empty(node)) {
        match fields.iter_mut().find(|(known, _)| known == key) {
            Some((_, Node { data: Data::Table(old), .. })) if matches!(node.data, Data::Table(_)) => {
                let Data::Table(new) = &node.data else { continue };
                *old = merged(old, new);
            }
            Some((_, old)) => *old = node.clone(),
            None => fields.push((key.clone(), node.clone())),
        }
    }
    fields
}

fn is_empty(node: &Node) -> bool {
    match &node.data {
        Data::Nothing | Data::Flag(false) | Data::Whole(0) => true,
        Data::Text(text) => text.is_empty(),
        Data::List(values) => values.is_empty(),
        Data::Table(fields) => fields.is_empty(),
        Data::Whole(_) | Data::Flag(true) | Data::Broken | Data::Time(_) => false,
    }
}

/// One mirror, and what it may take from `[global]`.
struct Mirror<'a> {
    global: &'a Global,
    fields: &'a Fields,
    file: &'a str,
}

impl Mirror<'_> {
    fn own(&self, key: &str) -> Option<&Node> {
        self.fields.iter().find(|(known, _)| known == key).map(|(_, node)| node)
    }

    fn global(&self, key: &str) -> Option<&Node> {
        self.global
            .fields
            .iter()
            .find(|(known, _)| known == key)
            .map(|(_, node)| node)
            .filter(|node| !is_empty(node))
    }

    fn text(&self, import: &mut Import<'_>, key: &str) -> String {
        self.own(key).map(|node| tree::text(node, key, &mut import.faults)).unwrap_or_default()
    }

    fn flag(&self, import: &mut Import<'_>, key: &str) -> bool {
        self.own(key).is_some_and(|node| tree::flag(node, key, &mut import.faults))
    }

    fn texts(&self, import: &mut Import<'_>, key: &str) -> Vec<String> {
        self.own(key).map(|node| tree::texts(node, key, &mut import.faults)).unwrap_or_default()
    }

    fn number(&self, import: &mut Import<'_>, key: &str) -> Option<i64> {
        let node = self.own(key).or_else(|| self.global(key))?;
        Some(tree::number(node, key, &mut import.faults))
    }

    fn draft(&self, import: &mut Import<'_>, place: String) -> Draft {
        let name = self.text(import, "name");
        if name.is_empty() {
            import.faults.add(place.clone(), "a mirror has no name");
        }
        let mut draft = Draft::new(place, &name);
        if !self.file.is_empty() {
            draft.note(format!("from {}", self.file));
        }
        self.leave_out(&mut draft);
        self.directory(import, &mut draft);
        self.times(import, &mut draft);
        let provider = self.text(import, "provider");
        match provider.as_str() {
            "rsync" | "" => self.rsync(import, &mut draft),
            "two-stage-rsync" => {
                let profile = finish::shown(&self.text(import, "stage1_profile"));
                draft.pause(format!("two-stage-rsync ({profile}): it made two passes, here is one"));
                self.rsync(import, &mut draft);
            }
            "command" => self.command(import, &mut draft),
            other => {
                let text =
                    format!("provider {:?}: must be rsync, two-stage-rsync or command", finish::shown(other));
                import.faults.add(draft.place.clone(), text);
            }
        }
        self.hooks(import, &mut draft);
        draft
    }

    fn leave_out(&self, draft: &mut Draft) {
        let provider_is = |what: &str| {
            self.own("provider").is_some_and(|node| matches!(&node.data, Data::Text(text) if text == what))
        };
        for (key, _) in self.fields {
            match LEFT_OUT.iter().find(|(known, _)| known == key) {
                Some(("stage1_profile", _)) if provider_is("two-stage-rsync") => {}
                Some((_, why)) => draft.note(format!("{key} is left out: {why}")),
                None if KNOWN.contains(&key.as_str()) => {}
                None => {
                    draft.note(format!("{:?} is left out: tunasync reads no such key", finish::shown(key)))
                }
            }
        }
    }

    /// `mirror_dir`, or the global one with the subdirectory and the name below it.
    fn directory(&self, import: &mut Import<'_>, draft: &mut Draft) {
        let own = self.text(import, "mirror_dir");
        if !own.is_empty() {
            draft.directory = own;
            return;
        }
        let base =
            self.global("mirror_dir").map(|node| tree::text(node, "global.mirror_dir", &mut import.faults));
        let below = self.text(import, "mirror_subdir");
        let name = draft.name.clone();
        draft.directory = format!("{}/{below}/{name}", base.unwrap_or_default());
    }

    fn times(&self, import: &mut Import<'_>, draft: &mut Draft) {
        match self.number(import, "interval") {
            Some(minutes) => draft.set_interval(minutes),
            None => draft.pause("it has no interval, which is all the time; it has no schedule"),
        }
        if let Some(tries) = self.number(import, "retry") {
            let fitting = tries.clamp(1, TRIES_MAX);
            if fitting != tries {
                draft.note(format!("{fitting} tries; {tries} are not accepted"));
            }
            draft.project.retry.get_or_insert_default().attempts = u32::try_from(fitting).unwrap_or(1);
        }
        if let Some(seconds) = self.number(import, "timeout") {
            draft.set_run_timeout(seconds);
        }
    }

    fn command(&self, import: &mut Import<'_>, draft: &mut Draft) {
        let command = self.text(import, "command");
        let program = shell::program(command.split_whitespace());
        draft.pause(format!(
            "it runs the command {:?}, not rsync; it has no upstream",
            finish::shown(program)
        ));
        let upstream = self.text(import, "upstream");
        // A user with a password, or a token.
        if !upstream.is_empty() && !upstream.contains(['@', '?']) {
            draft.note(format!("its command had the upstream {:?}", finish::shown(&upstream)));
        }
        if self.own("env").is_some() {
            draft.note("its env is left out: it belongs to the command");
        }
        self.docker(import, draft);
        draft.project.rsync = None;
    }

    fn docker(&self, import: &mut Import<'_>, draft: &mut Draft) {
        let image = self.text(import, "docker_image");
        if image.is_empty() {
        } else if self.global.docker {
            draft.pause(format!("it runs in the container {:?}", finish::shown(&image)));
        } else {
            draft.note("docker_image is left out: [docker] is not enabled");
        }
    }

    fn rsync(&self, import: &mut Import<'_>, draft: &mut Draft) {
        draft.set_source(&self.text(import, "upstream"), None);
        let command = self.text(import, "command");
        if !command.is_empty() && !command.ends_with("/rsync") && command != "rsync" {
            draft.pause("it runs another program in the place of rsync");
        }
        self.docker(import, draft);
        self.environment(import, draft);
        let (user, password) = (self.text(import, "username"), self.text(import, "password"));
        draft.set_user(&user);
        if !password.is_empty() {
            draft.password = Some(Zeroizing::new(password));
        }
        self.options(import, draft);
        self.exit_codes(import, draft);
    }

    /// The environment that rsync had.
    fn environment(&self, import: &mut Import<'_>, draft: &mut Draft) {
        let Some(env) = self.own("env") else { return };
        for (name, value) in tree::table(env, "env", &mut import.faults) {
            let value = Zeroizing::new(tree::text(value, "env", &mut import.faults));
            match name.as_str() {
                "RSYNC_PASSWORD" => draft.password = Some(value),
                "USER" | "LOGNAME" => draft.set_user(&value),
                name if name.starts_with("RSYNC_") => {
                    draft.pause(format!(
                        "its env sets {}, which agents do not pass to rsync",
                        finish::shown(name)
                    ));
                }
                other => {
                    draft.note(format!("env {:?} is left out: rsync does not read it", finish::shown(other)))
                }
            }
        }
    }

    fn options(&self, import: &mut Import<'_>, draft: &mut Draft) {
        let replaced = self.texts(import, "rsync_override");
        let only = self.flag(import, "rsync_override_only");
        if only && replaced.is_empty() {
            import.faults.add(draft.place.clone(), "rsync_override_only without rsync_override");
        }
        let mut words = replaced.clone();
        if !only {
            if self.flag(import, "use_ipv6") {
                words.push("--ipv6".to_owned());
            } else if self.flag(import, "use_ipv4") {
                words.push("--ipv4".to_owned());
            }
            let exclude = self.text(import, "exclude_file");
            if !exclude.is_empty() {
                words.push(format!("--exclude-from={exclude}"));
            }
            // The two-stage provider does not take the global ones.
            if self.text(import, "provider") != "two-stage-rsync" {
                let global = self.global("rsync_options");
                words.extend(
                    global
                        .map(|node| tree::texts(node, "global.rsync_options", &mut import.faults))
                        .unwrap_or_default(),
                );
            }
            words.extend(self.texts(import, "rsync_options"));
            self.io_timeout(import, draft);
        }
        if !replaced.is_empty() {
            import.tell_of_own_flags(&words);
        }
        let apart = options::apart(&words);
        if !apart.operands.is_empty() {
            draft.pause("its options hold a word that is no option");
        }
        draft.set_options(options::sift(&apart.options), !replaced.is_empty());
    }

    fn io_timeout(&self, import: &mut Import<'_>, draft: &mut Draft) {
        if self.flag(import, "rsync_no_timeout") {
            draft.note("rsync_no_timeout is left out: the fleet always has a timeout");
            return;
        }
        let own =
            self.own("rsync_timeout").map(|node| tree::number(node, "rsync_timeout", &mut import.faults));
        draft.set_io_timeout(own.filter(|seconds| *seconds > 0).unwrap_or(TIMEOUT_DEFAULT_S));
    }

    /// Exit codes that count as a success, the mirror's and the global ones.
    fn exit_codes(&self, import: &mut Import<'_>, draft: &mut Draft) {
        let own = ["success_exit_codes", "rsync_success_exit_codes"].map(|key| self.own(key));
        let global = ["dangerous_global_success_exit_codes", "dangerous_global_rsync_success_exit_codes"];
        let nodes = own.into_iter().chain(global.map(|key| self.global(key))).flatten();
        let mut codes = Vec::new();
        for node in nodes {
            match &node.data {
                Data::List(values) => {
                    codes.extend(
                        values.iter().map(|one| tree::number(one, "success_exit_codes", &mut import.faults)),
                    );
                }
                _ => codes.push(tree::number(node, "success_exit_codes", &mut import.faults)),
            }
        }
        for code in codes {
            match code {
                0 | CODE_VANISHED => {}
                CODE_PARTIAL => {
                    let reason = "imported: tunasync's success_exit_codes hold 23";
                    reason.clone_into(
                        &mut draft.project.retry.get_or_insert_default().treat_partial_as_success,
                    );
                }
                other => draft.pause(format!("rsync's exit code {other} counted as a success")),
            }
        }
    }

    /// What ran after a sync. The programs are named; their arguments may hold secrets.
    fn hooks(&self, import: &mut Import<'_>, draft: &mut Draft) {
        for on in ["exec_on_success", "exec_on_failure"] {
            let mut hooks = self.texts(import, on);
            if hooks.is_empty() {
                let global = self.global(on);
                hooks = global.map(|node| tree::texts(node, on, &mut import.faults)).unwrap_or_default();
            }
            hooks.extend(self.texts(import, &format!("{on}_extra")));
            for hook in hooks.iter().filter(|hook| !hook.trim().is_empty()) {
                let program = shell::program(hook.split_whitespace());
                draft.pause(format!("{on} runs {:?}, which the fleet does not", finish::shown(program)));
            }
        }
        if self.global.btrfs {
            draft.pause("[btrfs_snapshot] published it as a snapshot");
        }
    }
}

/// Most tries in one run, by the contract.
const TRIES_MAX: i64 = 20;
