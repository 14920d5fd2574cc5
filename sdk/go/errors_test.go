package hook

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

// A list wraps errors without those that it has not.
type list []error

func (l list) Error() string   { return fmt.Sprint([]error(l)) }
func (l list) Unwrap() []error { return l }

// An alias is a failure for errors.As only.
type alias struct{ error }

func (alias) As(target any) bool {
	failure, ok := target.(**failure)
	if ok {
		*failure = errTooLarge
	}
	return ok
}

func TestTheOwnerReadsOnlyWhatIsMeantForThem(t *testing.T) {
	secret := errors.New("secret")
	for name, test := range map[string]struct {
		err      error
		code     int
		text     string
		complete bool
	}{
		"a refusal":                     {Refusef("no"), codeRefused, "no", true},
		"one with a cause in its text":  {Refusef("no: %w", secret), codeRefused, "no: secret", true},
		"one with two":                  {Refusef("no: %w, %w", secret, secret), codeRefused, "no: secret, secret", true},
		"what wraps it":                 {fmt.Errorf("disk: %w", Refusef("no")), codeRefused, "disk: no", true},
		"joined alone":                  {errors.Join(nil, Refusef("no")), codeRefused, "no", true},
		"joined with another error":     {errors.Join(secret, Refusef("no")), codeRefused, "no", false},
		"joined and wrapped":            {fmt.Errorf("secret: %w", errors.Join(fmt.Errorf("disk: %w", Refusef("no")), secret)), codeRefused, "disk: no", false},
		"two refusals":                  {errors.Join(Refusef("a"), InvalidParamsf("b")), codeRefused, "a\nb", true},
		"two refusals and another":      {errors.Join(InvalidParamsf("b"), secret, errors.Join(Retryf("a"), secret)), codeInvalidParams, "b\na", false},
		"formatted with another error":  {fmt.Errorf("secret: %w, %w", secret, Refusef("no")), codeRefused, "no", false},
		"wrapped with a missing one":    {list{nil, Refusef("no")}, codeRefused, "no", true},
		"one by its method As":          {alias{secret}, codeRefused, errTooLarge.Error(), false},
		"a refusal that wraps a joined": {Refusef("no: %w", errors.Join(secret, Refusef("x"))), codeRefused, "no: secret\nx", true},
		"one without a text":            {Refusef(""), codeRefused, "the hook refuses, and gives no reason", true},
		"another error":                 {secret, codeFault, errFault.Error(), false},
		"two other errors":              {errors.Join(secret, secret), codeFault, errFault.Error(), false},
	} {
		shown, complete := callerError(context.Background(), test.err)
		if shown.code != test.code || shown.Error() != test.text || complete != test.complete {
			t.Errorf("%s: %d, %q, %t", name, shown.code, shown.Error(), complete)
		}
	}
}
