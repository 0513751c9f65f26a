package crashfs

import (
	"fmt"
	"testing"
)

// A Trouble is what a disk does to a life: the nth call fails, in some way, once or from then on.
type Trouble struct {
	Call    int
	Fault   Fault
	Lasting bool
}

func (x Trouble) String() string {
	if x.Lasting {
		return fmt.Sprintf("%v from call %d on", x.Fault, x.Call)
	}
	return fmt.Sprintf("%v at call %d", x.Fault, x.Call)
}

// Trouble makes a call fail, counted from now.
func (f *FS) Trouble(x Trouble) { f.FailAt(x.Call, x.Fault, x.Lasting) }

// EachTrouble calls each with every way to fail the nth call, for n from 1 on, until it says that there is no nth call.
// Short tests leave out most of them.
func EachTrouble(each func(Trouble) (more bool)) {
	step := 1
	if testing.Short() {
		step = 7
	}
	for _, fault := range Faults() {
		for _, lasting := range []bool{false, true} {
			for n := 1; each(Trouble{n, fault, lasting}); n += step {
				continue
			}
		}
	}
}
