package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"example.test/breaker"
)

func main() {
	b := breaker.New(os.Args[1], os.Args[2])
	b.Threshold, _ = strconv.ParseInt(os.Args[3], 10, 64)
	ms, _ := strconv.Atoi(os.Args[4])
	b.OpenTime, b.Token = time.Duration(ms)*time.Millisecond, os.Args[5]
	ms, _ = strconv.Atoi(os.Args[6])
	b.Client.Timeout = time.Duration(ms) * time.Millisecond
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		words := strings.Fields(lines.Text())
		if words[0] == "enter" {
			fmt.Println(b.Enter())
			continue
		}
		b.Leave(words[1], words[2] == "ok")
		fmt.Println("done")
	}
}
