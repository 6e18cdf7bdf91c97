# A guest whose processors from 1 up poll, as a packet driver does, and see for themselves when they were kept from it.
#
# Processor 0 wakes the others through the local APIC (INIT, SIPI). Each of them reads the time-stamp counter for ever
# and keeps the longest gap between two rounds, the number of gaps of 54 us and more (a 1024th of the tick of the BIOS
# clock), and their sum. About once a second processor 0, which sleeps otherwise, prints a line on COM1 and starts
# anew: its time-stamp counter as 16 digits, then the three numbers of each processor as 8 digits each, all in hex.
#
# as --32 -o poll.o poll.S && ld -m elf_i386 -Ttext 0x7c00 --oformat binary -o poll.bin poll.o: polling.py has the result.
    .code16
    .globl _start
    .set REPORTS, 18
_start:
    cli
    xorw %ax,%ax
    movw %ax,%ds
    movw %ax,%es
    movw %ax,%ss
    movw $0x7c00,%sp
    lgdtl gdtr
    movl %cr0,%eax
    orb  $1,%al
    movl %eax,%cr0
    movw $8,%bx
    movw %bx,%fs            # flat, and stays so after the way back
    andb $0xfe,%al
    movl %eax,%cr0
    # where an awakened processor starts: jmp 0:ap
    movb $0xea,0x8000
    movl $ap,0x8001
    sti
    # calibrate
    call tick
    rdtsc
    movl %eax,%esi
    movw $4,%cx
1:  call tick
    loop 1b
    rdtsc
    subl %esi,%eax
    shrl $12,%eax           # 4 ticks >> 2 >> 10: a 1024th of a tick, 54 us
    movl %eax,limit
    # wake others: INIT, then SIPI to page 8, all but self
    movl $0xfee00300,%ebx
    movl $0xc4500,%fs:(%ebx)
    call tick
    movl $0xc4608,%fs:(%ebx)
    call tick
report:
    movw $REPORTS,%cx
1:  call tick
    loop 1b
    rdtsc
    xchgl %eax,%edx
    call hex
    movl %edx,%eax
    call hex
    movw $slots,%si
    movw next,%cx
2:  movw $3,%bp
3:  movb $' ',%al
    call put
    xorl %eax,%eax
    xchgl %eax,(%si)
    call hex
    addw $4,%si
    decw %bp
    jnz 3b
    loop 2b
    movb $'\n',%al
    call put
    jmp report

tick:                       # wait for the next tick of the BIOS's clock
    movb 0x46c,%ah
1:  sti
    hlt
    cmpb 0x46c,%ah
    je 1b
    ret

hex:                        # eax as eight digits
    pushw %cx
    movw $8,%cx
    movl %eax,%ebx
1:  roll $4,%ebx
    movb %bl,%al
    andb $15,%al
    cmpb $10,%al
    sbbb $0x69,%al
    das
    call put
    loop 1b
    popw %cx
    ret

put:                        # al to COM1
    pushw %dx
    pushw %ax
    movw $0x3fd,%dx
1:  inb  %dx,%al
    testb $0x20,%al
    jz 1b
    popw %ax
    movw $0x3f8,%dx
    outb %al,%dx
    popw %dx
    ret

ap: cli
    xorw %ax,%ax
    movw %ax,%ds
    movw $12,%bx
    lock xaddw %bx,apbytes
    lock incw next
    movl limit,%ecx
    rdtsc
    movl %eax,%esi
    movl %edx,%edi
round:
    rdtsc
    movl %eax,%ebp
    subl %esi,%eax
    movl %ebp,%esi
    movl %edx,%ebp
    sbbl %edi,%edx
    movl %ebp,%edi
    jz 1f
    orl  $-1,%eax
1:  cmpl slots(%bx),%eax
    jbe 2f
    movl %eax,slots(%bx)
2:  cmpl %ecx,%eax
    jb   round
    incl slots+4(%bx)
    addl %eax,slots+8(%bx)
    jmp  round

    .align 4
gdt: .quad 0
    .quad 0x00cf92000000ffff
gdtr: .word 15
    .long gdt
next: .word 0
apbytes: .word 0
    .org 510
    .word 0xaa55
    .set limit, 0x8ff0
    .set slots, 0x9000
