// Package vm runs programs, above all the binaries of `go test`, on a kernel
// of our choice: a Debian kernel in a virtual machine that QEMU emulates
// without any help of the processor. It needs no root, no KVM and no disk
// image; the machine's own kernel may lack what the tests need, as IPVS.
//
// Everything travels in an initramfs that is put together in memory for each
// boot ([Image]): the programs, the files and host tools they need, the kernel
// modules in the order of loading ([Modules]), and an init (package guest) with
// its orders ([Job]). What the programs print comes back in frames over a
// serial port of its own ([Frame]), so that the kernel's messages, which have
// another, never mix with it.
//
// The kernel is the one that Debian's linux-image-cloud-amd64 stands for. It is
// downloaded by apt-get and unpacked into a cache ([FindKernel]), never
// installed.
package vm
