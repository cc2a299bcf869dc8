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
        apply_filter, sock_filter,
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

    /// From here on x86-64 has the numbers of x32 (asm/unistd.h, __X32_SYSCALL_BIT).
    const X32: u32 = 0x4000_0000;

    /// The bits of a socket's type that say which; the others are flags (linux/net.h).
    const TYPE: u64 = 0xf;

    pub(super) fn apply() -> Result<(), String> {
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> = NEVER.iter().map(|call| (*call, Vec::new())).collect();
        rules.insert(SYS_socket, sockets().map_err(|error| error.to_string())?);
        rules.insert(SYS_clone, other_views().map_err(|error| error.to_string())?);
        let arch = std::env::consts::ARCH.try_into().map_err(|error: seccompiler::BackendError| error.to_string())?;
        let refuse = SeccompAction::Errno(EPERM.unsigned_abs());
        let filter =
            SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).map_err(|error| error.to_string())?;
        let program: BpfProgram = filter.try_into().map_err(|error: seccompiler::BackendError| error.to_string())?;
        // The kernel asks every filter and does the strictest.
        apply_filter(&unknown()).map_err(|error| error.to_string())?;
        apply_filter(&program).map_err(|error| error.to_string())
    }

    /// What is answered as an older kernel would: `clone3`, whose flags lie in memory where no filter sees them, so that
    /// C libraries take `clone`; and on x86-64 the numbers of x32, which are second names of the same calls.
    fn unknown() -> Vec<sock_filter> {
        let step = |code: u32, jt: u8, jf: u8, k: u32| sock_filter { code: code as u16, jt, jf, k };
        let clone3 = u32::try_from(SYS_clone3).unwrap_or(u32::MAX);
        let refused = SECCOMP_RET_ERRNO | ENOSYS.unsigned_abs();
        vec![
            // The number stands first in what a filter sees (linux/seccomp.h, struct seccomp_data).
            step(BPF_LD | BPF_W | BPF_ABS, 0, 0, 0),
            step(BPF_JMP | BPF_JEQ | BPF_K, 2, 0, clone3),
            step(BPF_JMP | BPF_JGE | BPF_K, u8::from(cfg!(target_arch = "x86_64")), 0, X32),
            step(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW),
            step(BPF_RET | BPF_K, 0, 0, refused),
        ]
    }

    /// Processes in namespaces of their own.
    fn other_views() -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
        let flags =
            [CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET];
        let rule = |flag: c_int| {
            let bit = u64::from(flag.unsigned_abs());
            SeccompRule::new(vec![SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(bit), bit)?])
        };
        flags.into_iter().map(rule).collect()
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

    #[cfg(test)]
    mod tests {
        use std::io;

        /// Calls by number, as code would that a C library did not write. A child ends at once.
        ///
        /// Invariant: every argument is a number and none is an address, so no memory is read or written for it.
        #[allow(unsafe_code)]
        fn call(number: libc::c_long, first: libc::c_long) -> Option<i32> {
            // SAFETY: see above; a child shares nothing with its parent and runs nothing but `_exit`.
            let done = unsafe { libc::syscall(number, first, 0, 0, 0, 0) };
            let error = io::Error::last_os_error().raw_os_error();
            if done == 0 && number == libc::SYS_clone {
                // SAFETY: ends this process and touches nothing.
                unsafe { libc::_exit(0) }
            }
            if done < 0 { error } else { None }
        }

        #[test]
        fn no_process_gets_a_namespace_of_its_own_and_threads_still_begin() {
            let outcome = std::thread::spawn(|| {
                rustix::thread::set_no_new_privs(true).unwrap();
                if super::apply().is_err() {
                    return None;
                }
                let views = [libc::CLONE_NEWUSER, libc::CLONE_NEWNS, libc::CLONE_NEWNET | libc::CLONE_NEWUSER];
                let refused = views.map(|view| call(libc::SYS_clone, libc::c_long::from(view | libc::SIGCHLD)));
                let other_names = call(0x4000_0000 + libc::SYS_getpid, 0);
                let thread = std::thread::Builder::new().spawn(|| 7).map(|thread| thread.join().unwrap());
                Some((refused, call(libc::SYS_clone3, 0), other_names, thread.ok()))
            });

            let Some((refused, clone3, other_names, thread)) = outcome.join().unwrap() else {
                return eprintln!("\nSKIPPED: this kernel has no seccomp filters");
            };
            assert_eq!(refused, [Some(libc::EPERM); 3]);
            assert_eq!((clone3, other_names), (Some(libc::ENOSYS), Some(libc::ENOSYS)));
            assert_eq!(thread, Some(7));
        }
    }
}
