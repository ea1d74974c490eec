// One client of an etcd node: N puts of 256 bytes, so many in flight. Prints one JSON object: puts a second, latency.
package main

import (
	"context"
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/clientv3"
)

func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil || n <= 0 {
		fmt.Fprintln(os.Stderr, "usage: client ENDPOINT PUTS IN_FLIGHT")
		os.Exit(2)
	}
	return n
}

func main() {
	puts, inFlight := number(os.Args[2]), number(os.Args[3])
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{os.Args[1]}, DialTimeout: 5 * time.Second})
	if err != nil {
		panic(err)
	}
	value := strings.Repeat("v", 256)
	latency := make([]float64, puts)
	work := make(chan int, puts)
	for i := 0; i < puts; i++ {
		work <- i
	}
	close(work)
	var done sync.WaitGroup
	begin := time.Now()
	for k := 0; k < inFlight; k++ {
		done.Add(1)
		go func() {
			defer done.Done()
			for i := range work {
				start := time.Now()
				if _, err := client.Put(context.Background(), fmt.Sprintf("key-%08d", i), value); err != nil {
					panic(err)
				}
				latency[i] = float64(time.Since(start).Microseconds())
			}
		}()
	}
	done.Wait()
	seconds := time.Since(begin).Seconds()
	sort.Float64s(latency)
	fmt.Printf("{\"per_second\":%.0f,\"p50_us\":%.0f,\"p99_us\":%.0f}\n", float64(puts)/seconds, latency[puts/2],
		latency[puts*99/100])
}
