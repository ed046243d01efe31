//! What the coordinator wants served to replicas, brought to the rsync daemon in the order it was said, and what is said
//! back. Knows nothing of sockets and files: those are `serve`'s.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fleet::id::ProjectUid;
use mirror_proto::v1;
use rsync::{Host, Password};

use crate::executor::{Executor, Live};
use crate::guard::Guard;
use crate::outcome;
use crate::serve::{Export, Serve, ServeError, Settings, StillServed};

/// Exports of one list, over all its messages: twice the projects that a coordinator holds.
const LIST_MAX: usize = 20_000;
/// Longest fault that is told, bytes.
const FAULT_BYTES_MAX: usize = 1024;

/// The agent's side of its exports.
#[derive(Debug, Clone)]
pub struct Exporter {
    executor: Executor,
    serve: Option<Serve>,
    /// Why nothing is served, whatever is asked for.
    unable: String,
    book: Arc<Mutex<Book>>,
}

impl Exporter {
    /// Takes up what was served before. A daemon that cannot be had is no reason not to run: it is told to whoever asks
    /// for it.
    #[must_use]
    pub fn start(executor: Executor) -> Self {
        let live = executor.live();
        let started = if live.config.serve.enabled {
            Serve::start(Settings::of(&live.config, live.program.clone()), &live.guard)
                .map_err(|error| outcome::chain(&error))
        } else {
            Err("serve.enabled is false in the agent's own file".to_owned())
        };
        let (serve, unable) = match started {
            Ok(serve) => (Some(serve), String::new()),
            Err(why) => {
                if live.config.serve.enabled {
                    tracing::error!(why, "no replica is served");
                }
                (None, why)
            }
        };
        Self { executor, serve, unable, book: Arc::default() }
    }

    /// Where replicas connect to; empty while nothing is served. `local` is this host's address as the coordinator
    /// sees it.
    #[must_use]
    pub fn uri(&self, local: IpAddr) -> String {
        let Some(port) = self.serve.as_ref().and_then(Serve::port) else { return String::new() };
        let told = self.executor.live().config.serve.address.clone().map(|told| told.0);
        let host = told.unwrap_or(match local {
            IpAddr::V4(address) => Host::V4(address),
            IpAddr::V6(address) => Host::V6(address),
        });
        format!("rsync://{host}:{port}")
    }

    /// Does what a message says, on disk when this returns. The answer, unless the list goes on.
    pub async fn obey(&self, message: v1::Exports, local: IpAddr) -> Option<v1::Exporting> {
        let serial = message.serial;
        let work = self.book().gather(message)?;
        self.work(work).await;
        let mut book = self.book();
        book.serial = serial;
        Some(self.told(&book, local))
    }

    /// Tries again what did not succeed. The answer, if less is undone than before.
    pub async fn retry(&self, local: IpAddr) -> Option<v1::Exporting> {
        let (before, work) = {
            let book = self.book();
            (book.undone.len(), book.again()?)
        };
        self.work(work).await;
        let book = self.book();
        (book.undone.len() < before).then(|| self.told(&book, local))
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self, book: &Book, local: IpAddr) -> v1::Exporting {
        let fault = book.fault.clone();
        let exports = book.undone.iter().filter(|(_, undone)| undone.is_some());
        let not_served = exports.map(|(project, _)| *project).collect();
        v1::Exporting { serial: book.serial, serve_uri: self.uri(local), fault, not_served }
    }

    async fn work(&self, work: Work) {
        let exporter = self.clone();
        let done = tokio::task::spawn_blocking(move || exporter.apply(work)).await;
        let fault = done.unwrap_or_else(|error| format!("the agent failed at it: {error}"));
        if !fault.is_empty() {
            tracing::error!(fault, "not all is served to replicas as it should be");
        }
        self.book().note(fault);
    }

    /// What went wrong, in words; empty: nothing.
    fn apply(&self, work: Work) -> String {
        let live = self.executor.live();
        let mut faults = Faults::default();
        faults.words.extend(work.excess());
        let concerned = self.book().begin(&work);
        match &self.serve {
            // Nobody is served from here, and nobody is to be: that is no fault.
            None if work.is_empty() => self.book().end(&concerned, &faults),
            None => faults.words.push(self.unable.clone()),
            Some(serve) => {
                match work {
                    Work::All(exports) => {
                        let exports = faults.read(exports, &live);
                        faults.add(serve.set_all(&live.guard, exports));
                    }
                    Work::Some(exports, withdrawn) => {
                        let exports = faults.read(exports, &live);
                        faults.add(change(serve, &live.guard, &exports, &withdrawn));
                    }
                }
                self.book().end(&concerned, &faults);
            }
        }
        faults.text()
    }

    /// A session begins. Serials are a session's own, and so are messages in parts: those of the one before say nothing of
    /// what is heard in this one. What could not be done stays undone.
    pub(super) fn greeting(&self) {
        self.book().greeting();
    }

    /// Does something to this path while the daemon serves nothing that is at, in or around it to anybody. No export begins
    /// before that is done.
    ///
    /// # Errors
    /// [`StillServed`]: nothing was done.
    pub(crate) fn while_unserved<T>(&self, path: &Path, work: impl FnOnce() -> T) -> Result<T, StillServed> {
        match &self.serve {
            Some(serve) => serve.while_unserved(path, work),
            None => Ok(work()),
        }
    }

    /// Tries again at once to serve this project to nobody, if that was asked for and failed.
    ///
    /// # Errors
    /// In words: it may still be served.
    pub(crate) fn withdraw_again(&self, project: ProjectUid) -> Result<(), String> {
        let failed = matches!(self.book().undone.get(&project.0), Some(None));
        let Some(serve) = self.serve.as_ref().filter(|_| failed) else { return Ok(()) };
        serve.remove(project).map_err(|error| outcome::chain(&error))?;
        self.book().undone.remove(&project.0);
        Ok(())
    }

    /// Closes the socket; running transfers go on.
    pub fn stop(&self) {
        self.serve.iter().for_each(Serve::stop);
    }
}

/// Adds, changes and withdraws single exports; what failed.
fn change(
    serve: &Serve,
    guard: &Guard,
    exports: &[Export],
    withdrawn: &[u64],
) -> Vec<(Option<ProjectUid>, ServeError)> {
    let gone = withdrawn.iter().map(|uid| (ProjectUid(*uid), serve.remove(ProjectUid(*uid))));
    let put = exports.iter().map(|export| (export.project, serve.put(guard, export)));
    let failed = |(project, result): (ProjectUid, Result<(), ServeError>)| {
        result.err().map(|error| (Some(project), error))
    };
    gone.chain(put).filter_map(failed).collect()
}

/// What was heard and not done yet.
#[derive(Debug, Default)]
struct Book {
    /// Of the newest message that was obeyed in this session; 0: none was.
    serial: u64,
    /// What has been heard so far of a message that goes on.
    parts: Option<Work>,
    /// What could not be done: exports that are not in place, and (`None`) withdrawn ones that still are.
    undone: BTreeMap<u64, Option<v1::Export>>,
    /// Why, as far as it was told.
    fault: String,
}

impl Book {
    fn greeting(&mut self) {
        self.serial = 0;
        self.parts = None;
    }

    /// A message that comes in parts is obeyed when all of it was heard.
    fn gather(&mut self, message: v1::Exports) -> Option<Work> {
        let v1::Exports { serial: _, complete, more, exports, withdrawn } = message;
        let work = match self.parts.take().filter(|_| !complete) {
            _ if complete => Work::All(exports),
            None => Work::Some(exports, withdrawn),
            Some(Work::All(mut all)) => {
                all.extend(exports);
                Work::All(all)
            }
            Some(Work::Some(mut some, mut gone)) => {
                some.extend(exports);
                gone.extend(withdrawn);
                Work::Some(some, gone)
            }
        };
        if more {
            self.parts = Some(work.bounded());
            return None;
        }
        Some(work)
    }

    /// All that was told counts as not done until it is. The projects that it is about.
    fn begin(&mut self, work: &Work) -> Vec<u64> {
        let (exports, withdrawn): (_, &[u64]) = match work {
            Work::All(exports) => {
                self.undone.clear();
                (exports, &[])
            }
            Work::Some(exports, withdrawn) => (exports, withdrawn),
        };
        self.undone.extend(withdrawn.iter().map(|uid| (*uid, None)));
        self.undone.extend(exports.iter().map(|export| (export.project_uid, Some(export.clone()))));
        withdrawn.iter().copied().chain(exports.iter().map(|export| export.project_uid)).collect()
    }

    /// What did not fail is done. What failed and was not to be served is still served, it must be feared. What others
    /// were told of is not touched.
    fn end(&mut self, concerned: &[u64], faults: &Faults) {
        let done = concerned.iter().filter(|project| !faults.of_all && !faults.of.contains(project));
        done.for_each(|project| drop(self.undone.remove(project)));
        for project in &faults.of {
            self.undone.entry(*project).or_insert(None);
        }
    }

    /// What failed earlier is still a fault when all of something else was done.
    fn note(&mut self, fault: String) {
        if !fault.is_empty() || self.undone.is_empty() {
            self.fault = fault;
        }
    }

    fn again(&self) -> Option<Work> {
        let exports = self.undone.values().flatten().cloned().collect();
        let withdrawn = self.undone.iter().filter(|(_, undone)| undone.is_none());
        let withdrawn = withdrawn.map(|(project, _)| *project).collect();
        (!self.undone.is_empty()).then_some(Work::Some(exports, withdrawn))
    }
}

#[derive(Debug)]
enum Work {
    /// All there is to be.
    All(Vec<v1::Export>),
    /// What is to be added or changed, and what is to go.
    Some(Vec<v1::Export>, Vec<u64>),
}

impl Work {
    fn exports(&self) -> &[v1::Export] {
        match self {
            Self::All(exports) | Self::Some(exports, _) => exports,
        }
    }

    fn is_empty(&self) -> bool {
        self.exports().is_empty()
    }

    /// No more in memory than what shows that it was too much.
    fn bounded(mut self) -> Self {
        let (Self::All(exports) | Self::Some(exports, _)) = &mut self;
        exports.truncate(LIST_MAX + 1);
        self
    }

    fn excess(&self) -> Option<String> {
        let text =
            format!("the coordinator told of more than {LIST_MAX} exports; what follows is not served");
        (self.exports().len() > LIST_MAX).then_some(text)
    }
}

/// What failed.
#[derive(Debug, Default)]
struct Faults {
    words: Vec<String>,
    /// Whose exports.
    of: BTreeSet<u64>,
    /// None is certain to be in place.
    of_all: bool,
}

impl Faults {
    fn add(&mut self, failed: Vec<(Option<ProjectUid>, ServeError)>) {
        for (project, error) in failed {
            self.words.push(outcome::chain(&error));
            match project {
                Some(project) => {
                    self.of.insert(project.0);
                }
                None => self.of_all = true,
            }
        }
    }

    /// The exports that can be read, and are for our own daemon.
    fn read(&mut self, exports: Vec<v1::Export>, live: &Live) -> Vec<Export> {
        let mut good = Vec::new();
        for (place, export) in exports.into_iter().enumerate() {
            let project = export.project_uid;
            if place >= LIST_MAX {
                self.of.insert(project);
                continue;
            }
            match read(export, live) {
                Ok(export) => good.extend(export),
                Err(fault) => {
                    self.words.push(fault);
                    self.of.insert(project);
                }
            }
        }
        good
    }

    fn text(&self) -> String {
        let mut text = self.words.join("; ");
        crate::text::cut(&mut text, FAULT_BYTES_MAX);
        text
    }
}

/// An export as the daemon has it; `None`: a daemon of the administrator's own serves that root.
fn read(wire: v1::Export, live: &Live) -> Result<Option<Export>, String> {
    let v1::Export { project_uid, project, destination, users } = wire;
    let destination = destination.parse().map_err(|bad| format!("an export of {project}: {bad}"))?;
    if live.config.serve.external(&destination).is_some() {
        return Ok(None);
    }
    let user = |user: v1::ExportUser| {
        let secret = Password::new(user.secret.into_bytes());
        secret.map(|secret| (user.user, secret)).map_err(|_| format!("an export of {project}: a bad secret"))
    };
    let users = users.into_iter().map(user).collect::<Result<Vec<_>, _>>()?;
    Ok(Some(Export { project: ProjectUid(project_uid), name: project.clone(), destination, users }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn export(project_uid: u64) -> v1::Export {
        v1::Export { project_uid, ..v1::Export::default() }
    }

    fn message(complete: bool, more: bool, exports: &[u64], withdrawn: &[u64]) -> v1::Exports {
        let exports = exports.iter().copied().map(export).collect();
        v1::Exports { serial: 1, complete, more, exports, withdrawn: withdrawn.to_vec() }
    }

    fn faults(of: &[u64], of_all: bool) -> Faults {
        Faults { words: Vec::new(), of: of.iter().copied().collect(), of_all }
    }

    impl Book {
        /// Work of which these fail; what is undone then, and whether it is an export.
        fn doing(&mut self, message: v1::Exports, failed: &Faults) -> Vec<(u64, bool)> {
            let work = self.gather(message).expect("the message is whole");
            let concerned = self.begin(&work);
            self.end(&concerned, failed);
            self.undone.iter().map(|(project, export)| (*project, export.is_some())).collect()
        }
    }

    #[test]
    fn what_failed_stays_undone_until_it_is_done_whatever_else_is() {
        let mut book = Book::default();
        assert_eq!(book.doing(message(true, false, &[3, 5], &[]), &faults(&[5], false)), [(5, true)]);
        assert_eq!(book.doing(message(false, false, &[6], &[]), &faults(&[], false)), [(5, true)]);
        assert_eq!(
            book.doing(message(false, false, &[], &[3]), &faults(&[3], false)),
            [(3, false), (5, true)]
        );
        let Some(Work::Some(exports, withdrawn)) = book.again() else { panic!("nothing is tried again") };
        assert_eq!((exports, withdrawn), (vec![export(5)], vec![3]));
        assert_eq!(book.doing(message(false, false, &[5], &[3]), &faults(&[], false)), []);
        // A fault that is nobody's own leaves nothing certain; one of what goes leaves it served.
        assert_eq!(
            book.doing(message(true, false, &[1, 2], &[]), &faults(&[9], true)),
            [(1, true), (2, true), (9, false)]
        );
    }

    #[test]
    fn a_fault_is_told_for_as_long_as_something_is_undone() {
        let mut book = Book::default();
        book.doing(message(true, false, &[5], &[]), &faults(&[5], false));
        book.note("no room".to_owned());
        book.doing(message(false, false, &[6], &[]), &faults(&[], false));
        book.note(String::new());
        assert_eq!(book.fault, "no room");
        book.doing(message(false, false, &[5], &[]), &faults(&[], false));
        book.note(String::new());
        assert_eq!(book.fault, "");
    }

    #[test]
    fn a_new_session_has_obeyed_nothing_yet_and_still_tries_what_failed() {
        let mut book = Book { serial: 3, ..Book::default() };
        book.doing(message(true, false, &[5], &[]), &faults(&[5], false));
        assert!(book.gather(message(false, true, &[6], &[])).is_none());
        book.greeting();
        assert_eq!(book.serial, 0);
        let Some(Work::Some(exports, _)) = book.again() else { panic!("nothing is tried again") };
        assert_eq!(exports, [export(5)]);
        let work = book.gather(message(false, false, &[7], &[]));
        assert!(matches!(work, Some(Work::Some(some, _)) if some == [export(7)]));
    }

    #[test]
    fn a_message_in_parts_is_obeyed_when_it_is_whole() {
        let mut book = Book::default();
        // The first part may be empty, and a part of a change is no complete list.
        for complete in [true, false] {
            assert!(book.gather(message(complete, true, &[], &[7])).is_none());
            assert!(book.gather(message(false, true, &[1], &[])).is_none());
            match book.gather(message(false, false, &[2], &[8])).expect("it is whole") {
                Work::All(all) if complete => assert_eq!(all, [export(1), export(2)]),
                Work::Some(some, gone) if !complete => {
                    assert_eq!((some, gone), (vec![export(1), export(2)], vec![7, 8]));
                }
                other => panic!("{other:?}"),
            }
        }
        // A list that begins anew drops what had not come to its end.
        assert!(book.gather(message(true, true, &[1], &[])).is_none());
        assert!(
            matches!(book.gather(message(true, false, &[2], &[])), Some(Work::All(all)) if all == [export(2)])
        );
    }
}
