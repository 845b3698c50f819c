//! The limits: the same services without a runtime, over epoll and over io_uring, each as good as
//! we can write it. The difference between them and a runtime is the price of tasks.

mod epoll;
mod uring;

use kit::Orders;

fn main() {
    let orders = Orders::from_arguments();
    if orders.job() == "storm" {
        orders.refuse("no way to cancel receives and to see them end");
    }
    if orders.job() == "micro" {
        orders.refuse("a bare loop has no tasks");
    }
    let told = orders.clone();
    let backend = told.text("backend");
    kit::run_workers(&told, backend, move |seat| {
        let listener = seat.listen().expect("a listener on the loopback");
        let service = seat.listening();
        let result = match orders.text("backend") {
            "epoll" => epoll::serve(&listener, service),
            "io_uring" => uring::serve(&listener, service),
            _ => orders.refuse("backend=epoll or backend=io_uring"),
        };
        result.expect("a server");
    });
}
