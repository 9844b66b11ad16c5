/// How many files and connections the process may have open.
pub(super) fn files_max() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.and_then(|it| usize::try_from(it).ok()).unwrap_or(usize::MAX).max(64)
}
