//! What the kernel programs and the agent agree on.
#![cfg_attr(target_arch = "bpf", no_std)]
