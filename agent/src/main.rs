//! t
fn main() { let t=std::time::Instant::now();
 let k = culprit::kernel::load::Kernel::attach(&culprit::kernel::plan::Request{ring_bytes:1<<22,..Default::default()});
 match k { Ok(k)=> { for h in &k.hooks { println!("{} {:?}", h.hook.program, h.outcome);} println!("{:?} {:?}", t.elapsed(), k.losses());
  println!("{}", std::fs::read_to_string("/proc/self/status").unwrap().lines().filter(|l|l.starts_with("VmRSS")||l.starts_with("VmHWM")).collect::<Vec<_>>().join(" ")); }
 , Err(e)=>println!("{e}") } }
