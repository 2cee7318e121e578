# A second program of cgroup/connect4 and cgroup/sendmsg4, as socket-level balancers have: what goes to ASKED goes to
# BACKEND instead. Attached to the cgroup v2 root by links, which end with this process. Says "attached" once it is.
# balancer.pl CGROUP ASKED PORT BACKEND PORT
use strict;
my ($cgroup, $asked, $asked_port, $backend, $backend_port) = @ARGV;
my ($BPF, $LOAD, $LINK, $SOCK_ADDR) = (321, 5, 28, 18);
sub word { unpack("L", pack("C4", split(/\./, shift))) }
sub port { unpack("L", pack("nx2", shift)) }
# Opcode, destination register, source register, offset, immediate: struct bpf_insn.
sub insn { my ($op, $to, $from, $off, $imm) = @_; pack("CCsL", $op, $to | $from << 4, $off, $imm) }
my ($IP4, $PORT) = (4, 24);    # offsets in struct bpf_sock_addr
my $program = join "",
    insn(0xbf, 6, 1, 0, 0),                              # r6 = context
    insn(0x61, 2, 6, $IP4, 0), insn(0x18, 3, 0, 0, word($asked)), insn(0, 0, 0, 0, 0),
    insn(0x5d, 2, 3, 8, 0),                              # another address: out
    insn(0x61, 2, 6, $PORT, 0),
    insn(0x55, 2, 0, 6, port($asked_port)),              # another port: out
    insn(0x18, 2, 0, 0, word($backend)), insn(0, 0, 0, 0, 0),
    insn(0x63, 6, 2, $IP4, 0),
    insn(0xb7, 2, 0, 0, port($backend_port)),
    insn(0x63, 6, 2, $PORT, 0),
    insn(0xb7, 0, 0, 0, 1),                              # (two spare: both jumps land on the next line)
    insn(0xb7, 0, 0, 0, 1), insn(0x95, 0, 0, 0, 0);
my $licence = "GPL\0";
my $log = "\0" x 65536;
open(my $root, "<", $cgroup) or die "$cgroup: $!";
my @kept;
for my $type (10, 14) {                                  # BPF_CGROUP_INET4_CONNECT, BPF_CGROUP_UDP4_SENDMSG
    my $attr = pack("LLPPLLPLLa16LL", $SOCK_ADDR, length($program) / 8, $program, $licence, 1, length($log), $log, 0, 0,
        "balancer", 0, $type) . "\0" x 64;
    my $loaded = syscall($BPF, $LOAD, $attr, length($attr));
    $loaded >= 0 or die "load: $!: " . unpack("Z*", $log);
    my $link = pack("LLLL", $loaded, fileno($root), $type, 0) . "\0" x 48;
    my $linked = syscall($BPF, $LINK, $link, length($link));
    $linked >= 0 or die "link: $!";
    push @kept, $linked;
}
$| = 1;
print "attached\n";
<STDIN>;
