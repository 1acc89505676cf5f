// SPDX-License-Identifier: GPL-3.0-or-later
// Runs in a pod, see tests/real/java: `java Work.java`, which compiles it in memory. Threads that compute what the JIT
// compiles, fill and check a heap that is collected all the time, sleep, exchange, talk over NIO sockets and map a file.
import java.io.RandomAccessFile;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.MappedByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.SynchronousQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.zip.CRC32;

public class Work {
	static final CountDownLatch stop = new CountDownLatch(1);
	static final Map<String, AtomicLong> counts = new ConcurrentHashMap<>();

	interface Body {
		void run() throws Exception;
	}

	static void fail(String words) {
		System.out.println("FAIL: " + words);
		Runtime.getRuntime().halt(1);
	}

	static boolean stopping() {
		return stop.getCount() == 0;
	}

	static void did(String what) {
		counts.computeIfAbsent(what, k -> new AtomicLong()).incrementAndGet();
	}

	static Thread start(String name, Body body) {
		Thread t = new Thread(() -> {
			try {
				body.run();
			} catch (Throwable e) {
				e.printStackTrace();
				fail(name + ": expected no exception, got " + e);
			}
		}, name);
		t.start();
		return t;
	}

	// sieve and floating point: the same result each time, interpreted and compiled
	static long sieve(int n) {
		boolean[] no = new boolean[n];
		long sum = 0;
		for (int i = 2; i < n; i++) {
			if (no[i])
				continue;
			sum += i;
			for (int j = 2 * i; j < n; j += i)
				no[j] = true;
		}
		return sum;
	}

	static double series(int n) {
		double s = 0;
		for (int i = 1; i <= n; i++)
			s += Math.sin(i) / ((double) i * i);
		return s;
	}

	static void compute() {
		double first = series(5000);
		while (!stopping()) {
			long sum = sieve(10000);
			double d = series(5000);
			if (sum != 5736396 || Math.abs(d - first) > 1e-12)
				fail("compute: got " + sum + " and " + d + ", expected 5736396 and " + first);
			did("compute");
		}
	}

	static final class Node {
		final long key;
		final byte[] data;
		Node left, right;

		Node(long key) {
			this.key = key;
			data = new byte[(int) (key % 200)];
			if (data.length > 0)
				data[data.length - 1] = (byte) key;
		}
	}

	static Node tree(int depth, long key) {
		Node n = new Node(key);
		if (depth > 0) {
			n.left = tree(depth - 1, 2 * key);
			n.right = tree(depth - 1, 2 * key + 1);
		}
		return n;
	}

	static int check(Node n, long key) {
		if (n == null)
			return 0;
		if (n.key != key || n.data.length != key % 200 || (n.data.length > 0 && n.data[n.data.length - 1] != (byte) key))
			fail("heap: node " + key + " has other contents");
		return 1 + check(n.left, 2 * key) + check(n.right, 2 * key + 1);
	}

	// old trees stay for a while, so both collections have work
	static void heap() {
		List<Node> kept = new ArrayList<>();
		Random random = new Random(1);
		while (!stopping()) {
			kept.add(tree(10, 1));
			if (kept.size() > 40)
				kept.remove(random.nextInt(kept.size()));
			if (check(kept.get(random.nextInt(kept.size())), 1) != 2047)
				fail("heap: nodes are missing");
			did("heap");
		}
	}

	static void pool() throws Exception {
		ExecutorService pool = Executors.newFixedThreadPool(8);
		for (long n = 0; !stopping(); n++) {
			List<Future<Long>> all = new ArrayList<>();
			for (int i = 0; i < 50; i++) {
				final long base = n * 50 + i;
				all.add(pool.submit(() -> {
					Map<Long, String> m = new HashMap<>();
					for (long k = 0; k < 100; k++)
						m.put(base + k, Long.toString(base * k));
					long sum = 0;
					for (String s : m.values())
						sum += Long.parseLong(s);
					return sum;
				}));
			}
			for (int i = 0; i < 50; i++) {
				long got = all.get(i).get(60, TimeUnit.SECONDS);
				if (got != (n * 50 + i) * 4950)
					fail("pool: expected " + (n * 50 + i) * 4950 + ", got " + got);
			}
			did("pool");
		}
		pool.shutdown();
		if (!pool.awaitTermination(60, TimeUnit.SECONDS))
			fail("pool: does not end");
	}

	static void sleep() throws Exception {
		ScheduledExecutorService timer = Executors.newScheduledThreadPool(1);
		timer.scheduleAtFixedRate(() -> did("timer"), 5, 5, TimeUnit.MILLISECONDS);
		while (!stopping()) {
			long t0 = System.nanoTime();
			Thread.sleep(20);
			if (System.nanoTime() - t0 < 19900000)
				fail("sleep: expected 20 ms, got " + (System.nanoTime() - t0) + " ns");
			did("sleep");
		}
		timer.shutdownNow();
	}

	static void echo(ServerSocketChannel server) throws Exception {
		Selector selector = Selector.open();
		ByteBuffer buf = ByteBuffer.allocateDirect(65536);
		server.configureBlocking(false);
		server.register(selector, SelectionKey.OP_ACCEPT);
		while (!stopping() || selector.keys().size() > 1) { // until those who talk have closed
			selector.select(100);
			for (SelectionKey key : selector.selectedKeys()) {
				if (key.isAcceptable()) {
					SocketChannel c = server.accept();
					c.configureBlocking(false);
					c.register(selector, SelectionKey.OP_READ);
				} else {
					SocketChannel c = (SocketChannel) key.channel();
					buf.clear();
					if (c.read(buf) < 0) {
						c.close();
						continue;
					}
					buf.flip();
					while (buf.hasRemaining())
						c.write(buf);
				}
			}
			selector.selectedKeys().clear();
		}
		selector.close();
	}

	static void talk(int port) throws Exception {
		SocketChannel c = SocketChannel.open(new InetSocketAddress(InetAddress.getLoopbackAddress(), port));
		Random random = new Random(port);
		byte[] want = new byte[20000], got = new byte[want.length];
		while (!stopping()) {
			random.nextBytes(want);
			ByteBuffer out = ByteBuffer.wrap(want), in = ByteBuffer.wrap(got);
			while (out.hasRemaining())
				c.write(out);
			while (in.hasRemaining())
				if (c.read(in) < 0)
					fail("echo: an end in the middle");
			if (!java.util.Arrays.equals(want, got))
				fail("echo: other bytes came back");
			did("echo");
		}
		c.close();
	}

	static void mapped() throws Exception {
		Path path = Files.createTempFile("work", null);
		try (RandomAccessFile file = new RandomAccessFile(path.toFile(), "rw")) {
			MappedByteBuffer map = file.getChannel().map(FileChannel.MapMode.READ_WRITE, 0, 1 << 20);
			ByteBuffer page = ByteBuffer.allocate(4096);
			for (int n = 0; !stopping(); n++) {
				int at = n % 256 * 4096;
				CRC32 a = new CRC32(), b = new CRC32();
				for (int i = 0; i < 4096; i += 4)
					map.putInt(at + i, n + i);
				page.clear();
				if (file.getChannel().read(page, at) != 4096)
					fail("mapped: a short read");
				a.update(page.array());
				for (int i = 0; i < 4096; i += 4)
					page.putInt(i, n + i);
				b.update(page.array());
				if (a.getValue() != b.getValue())
					fail("mapped: page " + n + ": the file has other bytes than the mapping");
				did("mapped");
			}
		}
		Files.delete(path);
	}

	public static void main(String[] args) throws Exception {
		sun.misc.Signal.handle(new sun.misc.Signal("TERM"), s -> stop.countDown());
		ServerSocketChannel server = ServerSocketChannel.open();
		server.bind(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0));
		int port = ((InetSocketAddress) server.getLocalAddress()).getPort();
		SynchronousQueue<Long> hand = new SynchronousQueue<>();
		List<Thread> all = new ArrayList<>();
		all.add(start("compute", Work::compute));
		all.add(start("heap", Work::heap));
		all.add(start("pool", Work::pool));
		all.add(start("sleep", Work::sleep));
		all.add(start("echo", () -> echo(server)));
		all.add(start("talk", () -> talk(port)));
		all.add(start("mapped", Work::mapped));
		all.add(start("give", () -> {
			for (long n = 0; !stopping(); n++)
				while (!hand.offer(n, 100, TimeUnit.MILLISECONDS) && !stopping())
					continue;
		}));
		all.add(start("take", () -> {
			for (long n = 0; !stopping();) {
				Long got = hand.poll(100, TimeUnit.MILLISECONDS);
				if (got == null)
					continue;
				if (got != n)
					fail("take: expected " + n + ", got " + got);
				n++;
				did("hand");
			}
		}));
		System.out.println("ready");
		stop.await();
		for (Thread t : all) {
			t.join(30000);
			if (t.isAlive())
				fail("thread " + t.getName() + " does not end");
		}
		for (String what : new String[] { "compute", "heap", "pool", "sleep", "timer", "echo", "mapped", "hand" })
			if (!counts.containsKey(what) || counts.get(what).get() < 10)
				fail(what + ": did nothing");
		System.out.println(counts.get("pool") + " rounds");
		System.out.println("ok");
	}
}
