//! seccomp: which system calls there are not for this process.
//!
//! What is refused is named, and not what is let through: C libraries and kernels bring new calls with them, and a box
//! that stops because of one is worse off. What is named is every way on from here that is known: other programs and
//! processes, the kernel's own modules and filters, other views of the system, sockets below TCP and UDP.

use super::Force;

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
pub(super) fn restrict() -> Force {
    Force::None("not on this processor".into())
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
pub(super) fn restrict() -> Force {
    match filter::apply() {
        Ok(()) => Force::Full,
        Err(error) => Force::None(error),
    }
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
mod filter {
    use std::collections::BTreeMap;

    use libc::*;
    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
        apply_filter,
    };

    /// Refused whatever the arguments are.
    const NEVER: [c_long; 55] = [
        // other programs, other processes
        SYS_execve,
        SYS_execveat,
        SYS_ptrace,
        SYS_process_vm_readv,
        SYS_process_vm_writev,
        SYS_process_madvise,
        SYS_pidfd_getfd,
        SYS_kcmp,
        // other views of the system
        SYS_unshare,
        SYS_setns,
        SYS_mount,
        SYS_umount2,
        SYS_mount_setattr,
        SYS_move_mount,
        SYS_open_tree,
        SYS_fsopen,
        SYS_fsconfig,
        SYS_fsmount,
        SYS_fspick,
        SYS_pivot_root,
        SYS_chroot,
        SYS_name_to_handle_at,
        SYS_open_by_handle_at,
        SYS_mknodat,
        // the kernel itself
        SYS_init_module,
        SYS_finit_module,
        SYS_delete_module,
        SYS_kexec_load,
        SYS_kexec_file_load,
        SYS_bpf,
        SYS_perf_event_open,
        SYS_userfaultfd,
        SYS_io_uring_setup,
        SYS_io_uring_enter,
        SYS_io_uring_register,
        SYS_add_key,
        SYS_request_key,
        SYS_keyctl,
        SYS_syslog,
        SYS_acct,
        SYS_quotactl,
        SYS_swapon,
        SYS_swapoff,
        SYS_reboot,
        SYS_vhangup,
        SYS_lookup_dcookie,
        // the box's name, time and manners
        SYS_sethostname,
        SYS_setdomainname,
        SYS_settimeofday,
        SYS_clock_settime,
        SYS_personality,
        // other users
        SYS_setuid,
        SYS_setgid,
        SYS_setresuid,
        SYS_setresgid,
    ];

    /// The bits of a socket's type that say which; the others are flags (linux/net.h).
    const TYPE: u64 = 0xf;

    pub(super) fn apply() -> Result<(), String> {
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> = NEVER.iter().map(|call| (*call, Vec::new())).collect();
        rules.insert(SYS_socket, sockets().map_err(|error| error.to_string())?);
        let arch = std::env::consts::ARCH.try_into().map_err(|error: seccompiler::BackendError| error.to_string())?;
        let refuse = SeccompAction::Errno(EPERM.unsigned_abs());
        let filter =
            SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).map_err(|error| error.to_string())?;
        let program: BpfProgram = filter.try_into().map_err(|error: seccompiler::BackendError| error.to_string())?;
        apply_filter(&program).map_err(|error| error.to_string())
    }

    /// Sockets that are refused: of families that nobody here uses, and raw ones of those that are used.
    fn sockets() -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
        let family = |operation, family: c_int| {
            SeccompCondition::new(0, SeccompCmpArgLen::Dword, operation, u64::from(family.unsigned_abs()))
        };
        let raw = || {
            let type_bits = SeccompCmpOp::MaskedEq(TYPE);
            SeccompCondition::new(1, SeccompCmpArgLen::Dword, type_bits, u64::from(SOCK_RAW.unsigned_abs()))
        };
        let used = [AF_UNIX, AF_INET, AF_INET6, AF_NETLINK];
        let foreign = used.map(|used| family(SeccompCmpOp::Ne, used)).into_iter().collect::<Result<_, _>>()?;
        Ok(vec![
            SeccompRule::new(foreign)?,
            SeccompRule::new(vec![family(SeccompCmpOp::Eq, AF_INET)?, raw()?])?,
            SeccompRule::new(vec![family(SeccompCmpOp::Eq, AF_INET6)?, raw()?])?,
        ])
    }
}
