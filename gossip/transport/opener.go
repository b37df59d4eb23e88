package transport

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"sync"
)

// This file encrypts and decrypts as memberlist does.

// opener decrypts what peers send, to look at it before memberlist does, and
// encrypts what this node injects. Safe for concurrent use.
type opener struct {
	keys func() [][]byte // those of the keyring, the primary first

	mu    sync.Mutex // guards aeads
	aeads map[string]cipher.AEAD
}

// maxAEADs bounds the ciphers that are kept: rotations leave old ones behind.
const maxAEADs = 16

const nonceSize = 12 // of memberlist's encryption version 1

// open returns the content of version ‖ nonce ‖ ciphertext, or nil if no key
// opens it.
func (o *opener) open(b, data []byte) []byte {
	if len(b) < encryptedMin {
		return nil
	}
	for _, key := range o.keys() {
		a := o.aead(key)
		if a == nil {
			continue
		}
		if plain, err := a.Open(nil, b[1:1+nonceSize], b[1+nonceSize:], data); err == nil {
			return plain
		}
	}
	return nil
}

// seal encrypts a message with the primary key, in the form that open reads. It
// returns nil if there is no key.
func (o *opener) seal(message []byte) []byte {
	keys := o.keys()
	if len(keys) == 0 {
		return nil
	}
	a := o.aead(keys[0])
	if a == nil {
		return nil
	}
	b := make([]byte, 1+nonceSize, 1+nonceSize+len(message)+a.Overhead())
	b[0] = encryptedVersion
	_, _ = rand.Read(b[1:]) // never fails
	return a.Seal(b, b[1:1+nonceSize], message, nil)
}

func (o *opener) aead(key []byte) cipher.AEAD {
	o.mu.Lock()
	defer o.mu.Unlock()
	if a := o.aeads[string(key)]; a != nil {
		return a
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil
	}
	a, err := cipher.NewGCM(block)
	if err != nil {
		return nil
	}
	if len(o.aeads) >= maxAEADs || o.aeads == nil {
		o.aeads = map[string]cipher.AEAD{}
	}
	o.aeads[string(key)] = a
	return a
}
